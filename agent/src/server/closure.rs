//! Closures that site.lock does not have: for package lists that were changed on the running site. apt chooses from
//! the depot's pool alone, with lists and status of its own, so that what it chooses can be installed from here.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use gatehouse_model::{Doing as _, Fault, PackageId, Problem};

use crate::paths::Paths;
use crate::tool;

/// What apt has said of each list of wishes; the same list always gets the same answer, because the pool stays.
#[derive(Debug)]
pub struct Closures {
    dir: PathBuf,
    depot: PathBuf,
    suite: String,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Whether apt has read the pool's index.
    ready: bool,
    answers: BTreeMap<Vec<String>, Result<Vec<PackageId>, String>>,
}

impl Closures {
    /// A solver over the pool of this machine's depot.
    pub fn new(paths: &Paths, suite: &str) -> Self {
        Self {
            dir: paths.run.join("closures"),
            depot: paths.depot.clone(),
            suite: suite.to_owned(),
            known: Mutex::default(),
        }
    }

    /// The exact packages for sorted wishes, from the pool.
    ///
    /// # Errors
    /// The pool has no such package, or packages exclude each other.
    pub fn of(&self, wishes: &[String]) -> Result<Vec<PackageId>, Vec<Problem>> {
        self.answer(wishes).map_err(|why| {
            let what = format!(
                "no package set was made for this list, and the pool does not serve it: {why}; \
                 write what is missing into packages.extra of site.toml and build a new image"
            );
            vec![Problem::at("site.lock", 0, what)]
        })
    }

    fn answer(&self, wishes: &[String]) -> Result<Vec<PackageId>, String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = known.answers.get(wishes) {
            return answer.clone();
        }
        if !known.ready {
            self.prepare().map_err(|fault| fault.to_string())?;
            known.ready = true;
        }
        let answer = self.solve(wishes).map_err(|fault| why(&fault.to_string()));
        known.answers.insert(wishes.to_vec(), answer.clone());
        answer
    }

    /// Makes apt's directories and has it read the index.
    fn prepare(&self) -> Result<(), Fault> {
        let dir = &self.dir;
        for part in ["etc/preferences.d", "etc/apt.conf.d", "lists/partial", "cache/archives/partial"] {
            let part = dir.join(part);
            fs::create_dir_all(&part).doing(|| format!("making {}", part.display()))?;
        }
        // The depot is a part of the image that this system was started from: nobody else can have written it.
        let source = format!("deb [trusted=yes] file:{} {} main\n", self.depot.display(), self.suite);
        for (name, text) in
            [("sources.list", source), ("status", String::new()), ("apt.conf", self.configuration())]
        {
            fs::write(dir.join(name), text).doing(|| format!("writing {}", dir.join(name).display()))?;
        }
        self.apt(&["update", "-q"]).map(drop).doing(|| "reading the pool's index")
    }

    /// Every directory is named: what the machine's own configuration says must not matter.
    fn configuration(&self) -> String {
        let dir = self.dir.display();
        format!(
            "Dir::Etc \"{dir}/etc/\";\nDir::Etc::sourcelist \"{dir}/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\nDir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\n\
             Dir::State \"{dir}/\";\nDir::State::lists \"{dir}/lists/\";\nDir::State::status \"{dir}/status\";\n\
             Dir::Cache \"{dir}/cache/\";\nDir::Log \"{dir}/\";\nAPT::Architecture \"amd64\";\n\
             APT::Architectures {{ \"amd64\"; }};\nAPT::Install-Recommends \"false\";\nAPT::Sandbox::User \"\";\n\
             APT::Update::Error-Mode \"any\";\nAcquire::Languages \"none\";\nAcquire::Check-Date \"false\";\n\
             Acquire::AllowInsecureRepositories \"true\";\n"
        )
    }

    fn solve(&self, wishes: &[String]) -> Result<Vec<PackageId>, Fault> {
        let mut args = vec!["-s", "-q", "-y", "install", "?essential"];
        args.extend(wishes.iter().map(String::as_str));
        let said = self.apt(&args)?;
        let mut chosen: Vec<PackageId> = said.lines().filter_map(chosen).collect();
        chosen.sort();
        Ok(chosen)
    }

    fn apt(&self, args: &[&str]) -> Result<String, Fault> {
        let config = format!("APT_CONFIG={}", self.dir.join("apt.conf").display());
        let all: Vec<&str> =
            ["LC_ALL=C", &config, "apt-get"].into_iter().chain(args.iter().copied()).collect();
        tool::run("env", &all)
    }
}

/// One line of `apt-get -s install`: `Inst NAME (VERSION ORIGIN [ARCHITECTURE])`.
fn chosen(line: &str) -> Option<PackageId> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
    let version = rest.split(' ').next()?.to_owned();
    let architecture = rest.split_once('[')?.1.split(']').next()?.to_owned();
    let name = name.split(':').next()?.to_owned();
    Some(PackageId { name, version, architecture })
}

/// apt's errors without what is not about the packages.
fn why(words: &str) -> String {
    let errors: Vec<&str> =
        words.lines().filter_map(|line| line.split_once("E: ").map(|(_, text)| text.trim())).collect();
    if errors.is_empty() { words.trim().to_owned() } else { errors.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_simulation_names_a_package() {
        let id = chosen("Inst libc6 (2.41-12 localhost [amd64])").expect("one");
        assert_eq!(id.to_string(), "libc6=2.41-12/amd64");
        let id = chosen("Inst tzdata (2025b-4+deb13u1 Gatehouse:trixie/trixie [all]) []").expect("one");
        assert_eq!(id.to_string(), "tzdata=2025b-4+deb13u1/all");
        assert_eq!(chosen("Conf libc6 (2.41-12 localhost [amd64])"), None);
    }

    #[test]
    fn errors_are_apts_own() {
        let words = "env ended with exit status: 100: W: nothing\nE: Unable to locate package lesss\nE: b";
        assert_eq!(why(words), "Unable to locate package lesss; b");
        assert_eq!(why("no such file"), "no such file");
    }
}
