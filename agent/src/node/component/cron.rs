//! `cron`: commands that are run at set times.

use std::fmt::Write as _;

use gatehouse_model::Fault;

use super::work::Work;

const TABLE: &str = "/etc/cron.d/gatehouse";

pub(super) fn configure(work: &mut Work<'_>) -> Result<(), Fault> {
    let mut text = String::new();
    for tag in work.words("entries") {
        let (when, user, command) =
            (work.of("schedule", tag), work.of_or("user", tag, "root"), work.of("command", tag));
        if !is_schedule(when) {
            return Err(work.wrong(
                "schedule",
                tag,
                "write five fields as crontab(5) has them, or @daily and the like",
            ));
        }
        if command.is_empty() || command.contains('\n') {
            return Err(work.wrong("command", tag, "write one line for the shell"));
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{when} {user} {command}");
    }
    if !text.is_empty() && !work.target.has("/usr/sbin/cron") {
        return Err(Fault::new("cron.entries is set, and this node has no cron")
            .help("add cron to the node's package list"));
    }
    let head = "# Written by Gatehouse from the component cron.\n\
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n";
    let text = if text.is_empty() { text } else { format!("{head}{text}") };
    // cron looks at its directory every minute: nobody needs to be told.
    work.write_some(TABLE, 0o644, &text)
}

fn is_schedule(text: &str) -> bool {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let plain = |field: &&str| field.bytes().all(|b| b.is_ascii_alphanumeric() || b"*/,-".contains(&b));
    match fields[..] {
        [name] => {
            ["@reboot", "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"]
                .contains(&name)
        }
        _ => fields.len() == 5 && fields.iter().all(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_those_of_crontab() {
        for text in ["*/5 * * * *", "0 4 1,15 * mon-fri", "@daily", "@reboot"] {
            assert!(is_schedule(text), "{text}");
        }
        for text in ["", "* * * *", "* * * * * root", "@often", "0 4 * * ; rm"] {
            assert!(!is_schedule(text), "{text}");
        }
    }
}
