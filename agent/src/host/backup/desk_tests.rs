use gatehouse_model::site::VmmKind;

use super::*;
use crate::host::lifecycle::record::Record;
use crate::server::sample_site;

fn manifest(node: &Node, authority: Digest) -> Manifest {
    let record = Record {
        profile: "x".into(),
        root: "PARTUUID=1".into(),
        seconds: 1.0,
        phases: vec![],
        restored: None,
    };
    let store = Store { name: "disk0".into(), bytes: node.disk.as_bytes(), data: 1 };
    let backup = NodeBackup {
        name: node.name.clone(),
        vmm: VmmKind::Xen,
        node: serde_json::Value::Null,
        mac: node.mac,
        record,
        state: Wholeness::Frozen,
        stores: vec![store],
    };
    Manifest {
        schema: SCHEMA,
        made: 0,
        agent: "0".into(),
        site: "minimal.example.org".into(),
        authority,
        of: Of::Node(backup),
    }
}

#[test]
fn a_node_comes_back_only_where_it_belongs() {
    let site = sample_site();
    let (node, other) = (&site.nodes[0], &site.nodes[1]);
    let (own, foreign) = (Digest::of(b"own"), Digest::of(b"foreign"));
    let good = manifest(node, own);
    assert!(fits(&good, node, own, false).is_ok());
    let said = |manifest: &Manifest, node: &Node, authority, has| {
        let fault = fits(manifest, node, authority, has).expect_err("refused");
        (fault.exit_status(), fault.render())
    };
    let (exit, text) = said(&good, other, own, false);
    assert!(exit == Exit::Problem && text.contains("a backup of node1, not of node2"), "{text}");
    let (exit, text) = said(&good, node, foreign, false);
    assert!(exit == Exit::Refusal && text.contains("gatectl restore"), "{text}");
    let (exit, text) = said(&good, node, own, true);
    assert!(exit == Exit::Refusal && text.contains("--replace"), "{text}");
    let mut small = node.clone();
    small.disk = Size::gib(1);
    let (_, text) = said(&good, &small, own, false);
    assert!(text.contains("write disk = \"4GiB\""), "{text}");
    let mut moved = node.clone();
    moved.mac = other.mac;
    assert!(said(&good, &moved, own, false).1.contains("write mac ="));
    let mut larger = node.clone();
    larger.disk = Size::gib(8);
    assert!(fits(&good, &larger, own, false).is_ok(), "its file system grows at its start");
}

#[test]
fn what_is_torn_is_only_had_on_demand() {
    let name = "ce".parse().expect("a name");
    for (state, torn, good) in [
        (Wholeness::Torn, false, false),
        (Wholeness::Torn, true, true),
        (Wholeness::PowerCut, false, true),
        (Wholeness::Frozen, false, true),
    ] {
        assert_eq!(allowed(&name, state, torn).is_ok(), good, "{state} {torn}");
    }
}
