//! The JSON Schema of `site.toml`, made from the types that write it.

use super::SiteFile;

/// The schema as indented JSON with a newline at the end.
pub fn json_schema() -> String {
    let schema = schemars::schema_for!(SiteFile);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema holds only JSON values");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::super::{
        check, check_backup, check_disks, check_grid, check_match, check_nodes, check_report,
    };
    use super::json_schema;

    #[test]
    fn reader_and_schema_know_the_same_keys() {
        let schema: serde_json::Value = serde_json::from_str(&json_schema()).expect("it is JSON");
        for (section, known) in [
            ("", check::TOP),
            ("SiteSection", check::SITE),
            ("InstallSection", check::INSTALL),
            ("DiskSection", check_disks::DISK),
            ("NetworkSection", check::NETWORK),
            ("NicSection", check::NIC),
            ("HostSection", check::HOST),
            ("NodeSection", check_nodes::NODE),
            ("MachineSection", check_nodes::MACHINE),
            ("AccessSection", check::ACCESS),
            ("PackagesSection", check::PACKAGES),
            ("MatchSection", check_match::MATCH),
            ("ServerSection", check::SERVER),
            ("ReportSection", check_report::REPORT),
            ("BackupSection", check_backup::BACKUP),
            ("GridSection", check_grid::GRID),
            ("GridUserSection", check_grid::GRID_USER),
        ] {
            let part = if section.is_empty() { &schema } else { &schema["$defs"][section] };
            let mut keys: Vec<&str> =
                part["properties"].as_object().expect(section).keys().map(String::as_str).collect();
            let mut known = known.to_vec();
            keys.sort_unstable();
            known.sort_unstable();
            assert_eq!(keys, known, "{section}");
        }
    }
}
