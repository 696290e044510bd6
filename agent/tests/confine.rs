//! What a node's process sees of the machine: started as an ordinary user would, in a user namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gatehouse_agent::vmm::confine::ConfineOptions;

#[test]
fn the_program_sees_its_own_files_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let (own, other, root) = (dir.path().join("own"), dir.path().join("other"), dir.path().join("root"));
    fs::create_dir(&root).expect("made");
    fs::write(&own, "mine\n").expect("written");
    fs::write(&other, "theirs").expect("written");
    let system: Vec<PathBuf> = ["/usr", "/bin", "/lib", "/lib64"].map(PathBuf::from).to_vec();
    let read: Vec<&Path> = system.iter().map(PathBuf::as_path).filter(|path| path.exists()).collect();
    let mut argv = ConfineOptions::of(&root, &read, &[&own], None);
    let script = "cat \"$0\"; test -e \"$1\" || echo hidden; ls /proc; id -u; echo more >>\"$0\"
        touch /x 2>/dev/null || echo closed
        touch /usr/x 2>/dev/null || echo read-only
        mount -t tmpfs none /usr 2>/dev/null || echo powerless
        ls /dev/shm; echo memory >/dev/shm/x && cat /dev/shm/x";
    argv.extend(["/bin/sh", "-c", script].map(str::to_owned));
    argv.extend([own.display().to_string(), other.display().to_string()]);
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(env!("CARGO_BIN_EXE_gatehouse-agent"))
        .args(argv)
        .output();
    let Ok(output) = output else {
        assert!(std::env::var_os("CI").is_none(), "unshare is missing; run ci/setup");
        println!("skipped, because unshare is missing");
        return;
    };
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "mine\nhidden\ncpuinfo\n65534\nclosed\nread-only\npowerless\nmemory\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(fs::read_to_string(&own).expect("read"), "mine\nmore\n");
}
