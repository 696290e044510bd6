//! Somebody at a node's console.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// `gatectl node console`, with its input and output as data.
#[derive(Debug)]
pub struct Console {
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Console {
    /// Starts it.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("it starts");
        let mut output = child.stdout.take().expect("piped");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                to.lock().expect("whole").extend(&bytes[..count]);
            }
        });
        Self { child, seen }
    }

    /// Types.
    ///
    /// # Panics
    /// It has ended.
    pub fn type_keys(&mut self, keys: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        stdin.write_all(keys.as_bytes()).and_then(|()| stdin.flush()).expect("typed");
    }

    /// Waits until a text has been seen, and forgets what came up to its end.
    ///
    /// # Panics
    /// It does not come in time.
    pub fn wait_for(&self, text: &str, at_most: Duration) {
        let begun = Instant::now();
        loop {
            let mut seen = self.seen.lock().expect("whole");
            let all = String::from_utf8_lossy(&seen).into_owned();
            if let Some(at) = all.find(text) {
                *seen = all.as_bytes()[at + text.len()..].to_vec();
                return;
            }
            drop(seen);
            assert!(begun.elapsed() < at_most, "{text:?} did not come to the console: {all}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Leaves with Ctrl-].
    ///
    /// # Panics
    /// That ends it otherwise than well.
    pub fn leave(mut self) {
        self.type_keys("\x1d");
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
