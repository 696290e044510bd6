//! One report over HTTPS: signed with the machine's ssh host key, posted, its answer judged.

use std::path::Path;
use std::time::Duration;

use gatehouse_model::site::ReportTo;
use gatehouse_model::{Doing as _, Fault};
use ureq::Agent;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use super::queue::{Answer, Verdict};
use crate::control::board::now_millis;
use crate::tool;

/// Header that has the signature of the body: the lines between those of `ssh-keygen -Y sign`, as one.
pub const SIGNATURE: &str = "gatehouse-signature";
/// What is signed is a report and nothing else (`ssh-keygen -Y`, namespace).
pub const NAMESPACE: &str = "gatehouse-report";
/// Longest time without a single byte before a connection is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// So much of an answer is read, and so many letters of it are kept.
const LONGEST: u64 = 64 << 10;
const WORDS: usize = 200;

/// Signs a report with a machine's key; `ssh-keygen -Y verify` checks it.
///
/// # Errors
/// The machine has no key, or no ssh-keygen.
pub fn sign(key: &Path, body: &str) -> Result<String, Fault> {
    let key = key.to_string_lossy();
    let armored = tool::run_with_input("ssh-keygen", &["-Y", "sign", "-n", NAMESPACE, "-f", &key], body)
        .doing(|| "signing a report")?;
    Ok(armored.lines().filter(|line| !line.starts_with("-----")).collect())
}

/// Posts a report. That nobody answers is an answer too.
pub fn post(to: &ReportTo, body: &str, signature: &str) -> Answer {
    let posted = agent(to).and_then(|agent| {
        let request = agent.post(&to.url).header("content-type", "application/json");
        let answer = request.header(SIGNATURE, signature).send(body)?;
        let status = answer.status().as_u16();
        let text = answer.into_body().into_with_config().limit(LONGEST).lossy_utf8(true).read_to_string();
        // The status says enough.
        Ok((status, text.unwrap_or_default()))
    });
    let (verdict, words) = match posted {
        Ok((status, text)) => {
            (judge(status), format!("{status} {}", text.lines().next().unwrap_or_default()))
        }
        Err(fault) => (Verdict::Later, fault.to_string()),
    };
    let words = words.trim().chars().filter(|c| !c.is_control()).take(WORDS).collect();
    Answer { at: now_millis() / 1000, url: to.url.clone(), verdict, words }
}

fn agent(to: &ReportTo) -> Result<Agent, Fault> {
    let roots = match &to.authority {
        // What is compiled in: Mozilla's list, as old as this program.
        None => RootCerts::WebPki,
        Some(pem) => {
            let mut all = Vec::new();
            for item in parse_pem(pem.as_bytes()) {
                if let PemItem::Certificate(one) = item.doing(|| "reading report.authority")? {
                    all.push(one);
                }
            }
            RootCerts::from(all)
        }
    };
    let tls = TlsConfig::builder().provider(TlsProvider::Rustls).root_certs(roots).build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .https_only(true)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("gatehouse/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(SILENCE))
        .timeout_connect(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .timeout_per_write(Some(SILENCE));
    Ok(config.build().new_agent())
}

/// What a status means (RFC 9110, section 15). A redirection, and a client's error that time mends, are no refusal.
fn judge(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Accepted,
        408 | 421 | 425 | 429 => Verdict::Later,
        400..=499 => Verdict::Refused,
        _ => Verdict::Later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clients_error_is_for_good() {
        for (status, verdict) in [
            (200, Verdict::Accepted),
            (204, Verdict::Accepted),
            (301, Verdict::Later),
            (400, Verdict::Refused),
            (404, Verdict::Refused),
            (413, Verdict::Refused),
            (429, Verdict::Later),
            (500, Verdict::Later),
            (503, Verdict::Later),
        ] {
            assert_eq!(judge(status), verdict, "{status}");
        }
    }
}
