//! Kernels as PV-GRUB can read them. GRUB's loader for paravirtual Xen (2.12) unpacks gzip, and xz and LZO inside
//! a kernel image, but not the zstd that Debian 13's kernels are packed with; so beside each `vmlinuz-V` there is
//! a `vmlinux-V.gz`: the same kernel's ELF file in gzip.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use gatehouse_model::{Doing as _, Fault};

/// Name of the link to the kernel that is booted, beside Debian's own `/vmlinuz` and `/initrd.img`.
pub const LINK: &str = "vmlinux.gz";

/// Makes what is missing, removes what belongs to no kernel, and points the link to where `/vmlinuz` points.
///
/// # Errors
/// A kernel image has another form, or the file system is full.
pub fn sync(root: &Path) -> Result<(), Fault> {
    let boot = root.join("boot");
    let names = names(&boot)?;
    for name in &names {
        if let Some(version) = name.strip_prefix("vmlinuz-") {
            let to = boot.join(format!("vmlinux-{version}.gz"));
            if !to.exists() {
                unpack(&boot.join(name), &to).doing(|| format!("unpacking the kernel {version}"))?;
            }
        } else if let Some(version) = name.strip_prefix("vmlinux-").and_then(|rest| rest.strip_suffix(".gz"))
            && !names.contains(&format!("vmlinuz-{version}"))
        {
            fs::remove_file(boot.join(name)).doing(|| format!("removing /boot/{name}"))?;
        }
    }
    let link = root.join(LINK);
    let Ok(target) = fs::read_link(root.join("vmlinuz")) else { return Ok(()) };
    let version = target.to_string_lossy().rsplit_once("vmlinuz-").map(|(_, version)| version.to_owned());
    let Some(version) = version else { return Ok(()) };
    let target = PathBuf::from(format!("boot/vmlinux-{version}.gz"));
    if fs::read_link(&link).is_ok_and(|now| now == target) {
        return Ok(());
    }
    let partial = root.join(".vmlinux.gz.partial");
    // Left by a power cut; a link is made under another name and moved, so that there always is one.
    let _ = fs::remove_file(&partial);
    std::os::unix::fs::symlink(&target, &partial).doing(|| "linking the kernel")?;
    fs::rename(&partial, &link).doing(|| "linking the kernel")
}

fn names(boot: &Path) -> Result<Vec<String>, Fault> {
    let entries = match fs::read_dir(boot) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).doing(|| format!("reading {}", boot.display())),
    };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

fn unpack(image: &Path, to: &Path) -> Result<(), Fault> {
    let bytes = fs::read(image).doing(|| format!("reading {}", image.display()))?;
    let payload = payload(&bytes).ok_or_else(|| Fault::new("it is no bzImage of protocol 2.08 or later"))?;
    let mut reader: Box<dyn Read + '_> = match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::new(payload)?.single_frame()),
        [0x1f, 0x8b, ..] => Box::new(flate2::read::GzDecoder::new(payload)),
        [0xfd, b'7', b'z', ..] => Box::new(liblzma::read::XzDecoder::new(payload)),
        _ => return Err(Fault::new("its payload is neither zstd, gzip nor xz")),
    };
    let partial = to.with_extension("partial");
    let file = File::create(&partial).doing(|| format!("making {}", partial.display()))?;
    // No name and no time in the header: the same kernel gives the same bytes.
    let mut packed = GzBuilder::new().mtime(0).operating_system(255).write(file, Compression::new(7));
    std::io::copy(&mut reader, &mut packed)?;
    let mut file = packed.finish()?;
    file.flush()?;
    file.sync_all()?;
    fs::rename(&partial, to)?;
    Ok(())
}

/// The compressed kernel inside a bzImage: Linux's `Documentation/arch/x86/boot.rst`, fields `setup_sects`,
/// `header`, `payload_offset` and `payload_length`. The last four bytes of the payload are the unpacked size.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes: [u8; 4] = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let setup = usize::from(*image.get(0x1f1)?);
    let start = (setup + 1) * 512 + word(0x248)?;
    image.get(start..start + word(0x24c)?.checked_sub(4)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(kernel: &[u8]) -> Vec<u8> {
        let mut packed = zstd::encode_all(kernel, 3).expect("packed");
        packed.extend_from_slice(&u32::try_from(kernel.len()).expect("small").to_le_bytes());
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(packed.len()).expect("small").to_le_bytes());
        image.resize(1024 + 16, 0xcc);
        image.extend_from_slice(&packed);
        image.extend_from_slice(&[0; 100]);
        image
    }

    #[test]
    fn every_kernel_gets_its_elf_file_and_the_link_follows() {
        let root = tempfile::tempdir().expect("a directory");
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("boot")).expect("made");
        fs::write(at("boot/vmlinuz-6.1"), image(b"\x7fELF six one")).expect("written");
        fs::write(at("boot/vmlinux-5.0.gz"), "of a kernel that is gone").expect("written");
        std::os::unix::fs::symlink("boot/vmlinuz-6.1", at("vmlinuz")).expect("linked");
        sync(root.path()).expect("first");
        sync(root.path()).expect("again");
        assert!(!at("boot/vmlinux-5.0.gz").exists());
        let mut text = String::new();
        let file = File::open(at("vmlinux.gz")).expect("the link leads to it");
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
        assert_eq!(text, "\x7fELF six one");
    }

    #[test]
    fn another_form_is_a_fault() {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir(root.path().join("boot")).expect("made");
        fs::write(root.path().join("boot/vmlinuz-1"), "not a kernel").expect("written");
        let fault = sync(root.path()).expect_err("refused");
        assert!(fault.to_string().contains("no bzImage"), "{fault}");
    }
}
