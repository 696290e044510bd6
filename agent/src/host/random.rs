//! Random ids, as the kernel makes them.

use std::fs;

use gatehouse_model::{Doing as _, Fault};

/// A random UUID, in RFC byte order.
///
/// # Errors
/// /proc is not there.
pub fn id() -> Result<[u8; 16], Fault> {
    let path = "/proc/sys/kernel/random/uuid";
    let text = fs::read_to_string(path).doing(|| format!("reading {path}"))?;
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).doing(|| format!("reading {path}"))?;
        *byte = u8::from_str_radix(pair, 16).doing(|| format!("reading {path}"))?;
    }
    Ok(id)
}
