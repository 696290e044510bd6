//! One package specification: `[prefix][arch/]name=version[-release][/arch][:flags][context]`, or the older
//! form with hyphens.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::context;
use crate::glob::matches;
use crate::values::Derivation;

/// A package as lists, profiles and locks name it.
///
/// `{}` writes the form with `=`, `{:#}` the older one with hyphens where it can say the same; both can be read
/// again. A version or release of `*` is `None`: any will do.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PackageSpec {
    /// What to do with an earlier entry of the same name: one of `? + - ! ~ >`.
    pub prefix: Option<char>,
    /// The package's name.
    pub name: String,
    /// The version with its epoch; none for any.
    pub version: Option<String>,
    /// The release (Debian's revision); none for any, or where the version holds it.
    pub release: Option<String>,
    /// The architecture; none for the machine's own.
    pub arch: Option<String>,
    /// Letters for the installer, such as `b`: only at boot.
    pub flags: Option<String>,
    /// The context expression under which the package is wanted.
    pub context: Option<String>,
    /// What set or changed it.
    pub derivation: Derivation,
}

const PREFIXES: [char; 6] = ['?', '+', '-', '!', '~', '>'];

impl PackageSpec {
    /// A Debian package in one exact version.
    pub fn debian(name: impl Into<String>, version: &str, arch: Option<&str>) -> Self {
        let (version, release) = match version.rsplit_once('-') {
            Some((version, release)) => (version, Some(release.to_owned())),
            None => (version, None),
        };
        let version = Some(version.to_owned());
        Self { name: name.into(), version, release, arch: arch.map(str::to_owned), ..Self::default() }
    }

    /// The version as Debian writes it, revision included; none if any will do.
    pub fn debian_version(&self) -> Option<String> {
        match (&self.version, &self.release) {
            (Some(version), Some(release)) => Some(format!("{version}-{release}")),
            (version, _) => version.clone(),
        }
    }

    /// The order of packages in a profile.
    pub(crate) fn by_key(&self, other: &Self) -> Ordering {
        let key = |spec: &Self| (spec.name.clone(), spec.arch.clone(), spec.context.clone());
        self.name.cmp(&other.name).then_with(|| key(self).cmp(&key(other)))
    }

    /// Whether both ask for the same version and release.
    pub(crate) fn is_same_version(&self, other: &Self) -> bool {
        (&self.version, &self.release) == (&other.version, &other.release)
    }

    /// Whether a package of this version is what the specification asks for.
    ///
    /// `*` stands for any characters and `?` for one; without a release, any release of the version will do.
    pub fn fits(&self, version: &str) -> bool {
        let (Some(wanted), release) = (self.version.as_deref(), self.release.as_deref()) else {
            return self.release.as_deref().is_none_or(|release| {
                version.rsplit_once('-').is_some_and(|(_, have)| matches(release, have))
            });
        };
        match release {
            Some(release) => matches(&format!("{wanted}-{release}"), version),
            None => matches(wanted, version) || matches(&format!("{wanted}-*"), version),
        }
    }

    /// Says what is wrong with the parts, wherever they came from.
    pub(crate) fn check(&self) -> Result<(), String> {
        let allowed = |part: &Option<String>, extra: &str| {
            part.as_deref().is_none_or(|text| {
                !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
            })
        };
        let name = Some(self.name.clone());
        let wrong = |what: &str, part: &Option<String>| {
            Err(format!("{:?} is not a package's {what}", part.as_deref().unwrap_or_default()))
        };
        if !allowed(&name, "_.+-") || !self.name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return wrong("name", &name);
        }
        if !allowed(&self.version, ".~_+:*?-") {
            return wrong("version", &self.version);
        }
        if !allowed(&self.release, ".~_+*?") {
            return wrong("release", &self.release);
        }
        if !allowed(&self.arch, "_-") {
            return wrong("architecture", &self.arch);
        }
        if !allowed(&self.flags, "") {
            return wrong("flags", &self.flags);
        }
        context::check(self.context.as_deref().unwrap_or_default())
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut spec = Self::default();
        let mut rest = text;
        if let Some(prefix) = rest.chars().next().filter(|c| PREFIXES.contains(c)) {
            spec.prefix = Some(prefix);
            rest = &rest[1..];
        }
        if let Some(inner) = rest.strip_suffix(']') {
            let (head, context) = inner.split_once('[').ok_or("the context has no '['")?;
            spec.context = Some(context.to_owned());
            rest = head;
        }
        if let Some((head, flags)) = rest.rsplit_once(':')
            && !flags.is_empty()
            && flags.bytes().all(|b| b.is_ascii_alphanumeric())
        {
            spec.flags = Some(flags.to_owned());
            rest = head;
        }
        let (arch, rest) = split_arch(rest)?;
        spec.arch = arch.map(str::to_owned);
        let (name, version, release) = split_name(rest).ok_or("it has no version")?;
        let known = |part: &str| (part != "*").then(|| part.to_owned());
        name.clone_into(&mut spec.name);
        spec.version = known(version);
        spec.release = release.and_then(known);
        spec.check()?;
        Ok(spec)
    }

    fn tail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(arch) = &self.arch {
            write!(f, "/{arch}")?;
        }
        if let Some(flags) = &self.flags {
            write!(f, ":{flags}")?;
        }
        self.context.as_ref().map_or(Ok(()), |context| write!(f, "[{context}]"))
    }
}

/// The architecture before or after the rest; of two, the one before counts.
fn split_arch(text: &str) -> Result<(Option<&str>, &str), String> {
    let parts: Vec<&str> = text.split('/').collect();
    match parts[..] {
        [rest] => Ok((None, rest)),
        [arch, rest] if split_name(rest).is_some() && split_name(arch).is_none() => Ok((Some(arch), rest)),
        [rest, arch] | [arch, rest, _] => Ok((Some(arch), rest)),
        _ => Err("it has too many slashes".to_owned()),
    }
}

/// Name, version and perhaps release.
fn split_name(text: &str) -> Option<(&str, &str, Option<&str>)> {
    if let Some((name, version)) = text.split_once('=') {
        return Some(match version.rsplit_once('-') {
            Some((version, release)) => (name, version, Some(release)),
            None => (name, version, None),
        });
    }
    let (rest, release) = text.rsplit_once('-')?;
    let (name, version) = rest.rsplit_once('-')?;
    Some((name, version, Some(release)))
}

impl FromStr for PackageSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|what| {
            format!("{text:?} is not a package specification: {what}; write name=version, or name=* for any version")
        })
    }
}

impl fmt::Display for PackageSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(prefix) = self.prefix {
            write!(f, "{prefix}")?;
        }
        let version = self.version.as_deref().unwrap_or("*");
        // Without a release, what follows the last hyphen or colon would be taken for a release or flags.
        let legacy = f.alternate() && !version.contains('-');
        let bare = !legacy && !version.contains(['-', ':']);
        let separator = if legacy { '-' } else { '=' };
        write!(f, "{}{separator}{version}", self.name)?;
        match self.release.as_deref() {
            Some(release) => write!(f, "-{release}")?,
            None if bare => {}
            None => f.write_str("-*")?,
        }
        self.tail(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(spec: &PackageSpec) -> String {
        let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".to_owned());
        let all = [&spec.version, &spec.release, &spec.arch, &spec.flags, &spec.context].map(part);
        format!("{} {}", spec.name, all.join(" "))
    }

    #[test]
    fn specifications_are_read_as_lcfg_core_reads_them() {
        for (text, wanted) in [
            ("kernel-2.6.9-5.EL/i686:b", "kernel 2.6.9 5.EL i686 b -"),
            ("i386/glibc-2.3.2-95", "glibc 2.3.2 95 i386 - -"),
            ("i386/glibc-2.3.2-95/i686", "glibc 2.3.2 95 i386 - -"),
            ("glibc-2-95/x86-64", "glibc 2 95 x86-64 - -"),
            ("foo=1:2.0-1ubuntu1/amd64:br[!install]", "foo 1:2.0 1ubuntu1 amd64 br !install"),
            ("foo=1:b", "foo 1 - - b -"),
            ("foo=1:2.0-*", "foo 1:2.0 - - - -"),
            ("foo=1:2.0", "foo 1:2.0 - - - -"),
            ("gcc-c++-3.2.3-20", "gcc-c++ 3.2.3 20 - - -"),
            ("name=*", "name - - - - -"),
            ("lcg-CE-2.4.0-*/noarch", "lcg-CE 2.4.0 - noarch - -"),
            ("libx=1.2-3-4", "libx 1.2-3 4 - - -"),
        ] {
            assert_eq!(text.parse::<PackageSpec>().map(|spec| parts(&spec)).as_deref(), Ok(wanted), "{text}");
        }
        for prefix in PREFIXES {
            assert_eq!(format!("{prefix}a-1-1").parse::<PackageSpec>().unwrap().prefix, Some(prefix));
        }
        for bad in [
            "openssl*-1-1",
            "foo",
            "foo-1",
            "=a-1-1",
            "*a-1-1",
            "a=",
            "a=1-",
            "a=1[x",
            "a=1[x=]",
            "a/b/c/d",
            "",
        ] {
            let what = bad.parse::<PackageSpec>().unwrap_err();
            assert!(what.contains("write name=version"), "{bad}: {what}");
        }
    }

    #[test]
    fn both_forms_are_written() {
        for (text, modern, legacy) in [
            ("kernel-2.6.9-5.EL/i686:b", "kernel=2.6.9-5.EL/i686:b", "kernel-2.6.9-5.EL/i686:b"),
            ("bash=5.2", "bash=5.2", "bash-5.2-*"),
            ("+bash=*[!a]", "+bash=*[!a]", "+bash-*-*[!a]"),
            ("foo=1:2.0", "foo=1:2.0-*", "foo-1:2.0-*"),
        ] {
            let spec: PackageSpec = text.parse().unwrap();
            assert_eq!((spec.to_string(), format!("{spec:#}")), (modern.to_owned(), legacy.to_owned()));
        }
        let debian = PackageSpec::debian("foo", "1:2.0-1-3", Some("amd64"));
        assert_eq!(debian.to_string(), "foo=1:2.0-1-3/amd64");
        assert_eq!(debian.debian_version().as_deref(), Some("1:2.0-1-3"));
    }

    #[test]
    fn versions_fit_patterns() {
        for (spec, version, fits) in [
            ("foo=*", "1:2-3", true),
            ("foo=1.*", "1.2-3", true),
            ("foo=1.*", "2.1", false),
            ("foo-1.2-*", "1.2-7", true),
            ("foo-1.2-*", "1.20-7", false),
            ("foo=1.2", "1.2", true),
            ("foo=1.2", "1.2-1+b1", true),
            ("foo=1.2-1", "1.2-1", true),
            ("foo=1.2-1", "1.2-1+b1", false),
            ("foo=1.2-1*", "1.2-1+b1", true),
            ("foo=1.?-*", "1.2-1", true),
            ("foo-*-1", "7-1", true),
            ("foo-*-1", "7-2", false),
            ("foo-*-1", "7", false),
        ] {
            assert_eq!(spec.parse::<PackageSpec>().unwrap().fits(version), fits, "{spec} {version}");
        }
    }

    proptest! {
        #[test]
        fn printing_then_parsing_is_identity(
            prefix in prop::option::of(prop::sample::select(PREFIXES.to_vec())),
            name in "[A-Za-z0-9][A-Za-z0-9_.+]{0,5}(-[a-z]{1,4})?",
            version in prop::option::of("([0-9]:)?[A-Za-z0-9.~_+]{1,8}"),
            release in prop::option::of("[A-Za-z0-9.~_+]{1,6}"),
            arch in prop::option::of("[a-z0-9_]{1,6}"),
            flags in prop::option::of("[a-z]{1,3}"),
            context in prop::option::of("!?[a-z]{1,5}"),
        ) {
            let spec = PackageSpec { prefix, name, version, release, arch, flags, context, derivation: Vec::new() };
            prop_assert_eq!(spec.to_string().parse(), Ok(spec.clone()));
            let legacy: Result<PackageSpec, String> = format!("{spec:#}").parse();
            prop_assert_eq!(legacy, Ok(spec));
        }
    }
}
