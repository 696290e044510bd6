//! Which process holds a TCP port, as far as /proc tells: for the message of a port that cannot be opened.

use std::fs;

/// The name and number of a process that listens at a port; none where none does or it is another user's.
pub(super) fn of_port(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let inode = tables.iter().find_map(|table| listening_inode(table, port))?;
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(id) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else {
            continue;
        };
        let Ok(open) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds =
            |link: fs::DirEntry| fs::read_link(link.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str());
        if open.flatten().any(holds) {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {id})", command.trim()));
        }
    }
    None
}

/// The inode of the socket that listens at a port, from the text of /proc/net/tcp (proc(5): field 1 is the local
/// address, 3 the state, of which `0A` is listening, 9 the inode).
fn listening_inode(table: &str, port: u16) -> Option<String> {
    let port = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&port) && *fields.get(3)? == "0A";
        fields.get(9).filter(|_| listens).map(|inode| (*inode).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_listening_socket_of_a_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:0050 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 11 1 0\n   \
            1: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0\n";
        assert_eq!(listening_inode(table, 80).as_deref(), Some("12"));
        assert_eq!(listening_inode(table, 81), None);
    }
}
