//! An archive's index, `Packages`.

use gatehouse_model::Digest;

use crate::{Control, Paragraph};

/// A package's paragraph: what it says about itself, and where its file is and what it must be.
pub fn entry(control: &Control, path: &str, size: u64, sha256: &Digest) -> Paragraph {
    let mut paragraph = control.fields().clone();
    // A package cannot speak of its own file: what it claims is replaced.
    for (name, value) in
        [("Filename", path.to_owned()), ("Size", size.to_string()), ("SHA256", sha256.to_string())]
    {
        paragraph.remove(name);
        paragraph.set(name, value);
    }
    paragraph
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::control_of;

    #[test]
    fn an_entry_ends_with_what_is_known_of_the_file() {
        let control = control_of("Package: a\nFilename: /etc/shadow\nDescription: x\n more");
        let text = entry(&control, "pool/a.deb", 7, &Digest::of(b"")).to_string();
        let expected = format!(
            "Version: 1\nArchitecture: all\nPackage: a\nDescription: x\n more\n\
             Filename: pool/a.deb\nSize: 7\nSHA256: {}\n",
            Digest::of(b"")
        );
        assert_eq!(text, expected);
    }
}
