//! Why a resource has its value: who set it and who changed it, in order.

use std::fmt;

use gatehouse_model::Problem;
use serde::Serialize;

use crate::compile::PROFILE;
use crate::values::derivation_text;
use crate::{Compiled, Fleet, Resource, Step};

/// How a resource came to its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Why {
    /// `component.resource`.
    pub resource: String,
    /// What the schema gives it where no source does; none without a schema.
    pub default: Option<String>,
    /// The lines that set or changed it, in order.
    pub steps: Vec<Step>,
    /// The values it has, references replaced: one, or one for each context.
    pub values: Vec<Value>,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Value {
    /// The context for which it is; none: any.
    pub context: Option<String>,
    /// The value.
    pub value: String,
    /// The type.
    pub kind: String,
    /// The files and lines, as the profile carries them.
    pub derivation: String,
}

impl Why {
    /// Finds out about `component.resource` of a node.
    ///
    /// # Errors
    /// Everything that is wrong with the node, or that it has no such resource.
    pub fn of(fleet: &mut Fleet, node: &str, name: &str) -> Result<Self, Vec<Problem>> {
        let wrong = |what: String| vec![Problem::at("--why", 0, what)];
        let (component, resource) = name
            .split_once('.')
            .ok_or_else(|| wrong(format!("{name:?} is not a resource; write component.resource")))?;
        let (compiled, steps) = fleet.compile_one(node, Some((component, resource)))?;
        let default = fleet.default_of(component, resource);
        let mut values = values(&compiled, component, resource);
        if (component, resource) == (PROFILE, "packages") {
            // It stays on the server; the wishes are what came of it.
            values.extend(steps.last().map(|step| Value {
                context: None,
                value: step.value.clone(),
                kind: "string".to_owned(),
                derivation: step.place.clone(),
            }));
        }
        if values.is_empty() && steps.is_empty() {
            return Err(wrong(format!("{node} has no resource {name}; see its profile for those it has")));
        }
        Ok(Self { resource: name.to_owned(), default, steps, values })
    }
}

fn values(compiled: &Compiled, component: &str, resource: &str) -> Vec<Value> {
    let found = compiled.components.get(component).into_iter().flat_map(|found| found.all(resource));
    let value = |found: &Resource| Value {
        context: found.context.clone(),
        value: found.value.clone(),
        kind: found.kind.to_string(),
        derivation: derivation_text(&found.derivation),
    };
    found.map(value).collect()
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |context: &Option<String>| {
            context.as_ref().map_or_else(|| self.resource.clone(), |c| format!("{}[{c}]", self.resource))
        };
        if let Some(default) = &self.default {
            writeln!(f, "schema: {} {default}", self.resource)?;
        }
        for Step { place, context, mutation, value } in &self.steps {
            match mutation {
                Some(mutation) => writeln!(f, "{place}: !{} {mutation} -> {value}", named(context))?,
                None => writeln!(f, "{place}: {} {value}", named(context))?,
            }
        }
        for Value { context, value, kind, derivation } in &self.values {
            let from = if derivation.is_empty() { "the schema's default" } else { derivation };
            writeln!(f, "{} = {value} ({kind}; {from})", named(context))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sources;

    fn why(name: &str) -> Result<String, Vec<Problem>> {
        let mut sources = Sources::new();
        sources.insert("source/n", "#include <a.h>\n!boot.services mADD(<%profile.node%>.service)\n");
        sources.insert("include/a.h", "boot.services ssh.service\n!boot.services[install] mSET()\n");
        let mut fleet = Fleet::new();
        fleet.set_sources(sources);
        fleet.set_nodes([("n".to_owned(), String::new())]);
        Why::of(&mut fleet, "n", name).map(|why| why.to_string())
    }

    #[test]
    fn every_step_is_told() {
        assert_eq!(
            why("boot.services").unwrap(),
            "schema: boot.services \n\
             lcfg/include/a.h:1: boot.services ssh.service\n\
             lcfg/include/a.h:2: !boot.services[install] mSET() -> \n\
             lcfg/source/n:2: !boot.services mADD(<%profile.node%>.service) -> ssh.service <%profile.node%>.service\n\
             boot.services = ssh.service n.service (string; lcfg/source/n:2 lcfg/include/a.h:1)\n\
             boot.services[install] =  (string; lcfg/include/a.h:2)\n"
        );
        assert_eq!(
            why("grub.timeout").unwrap(),
            "schema: grub.timeout 1\ngrub.timeout = 1 (integer; the schema's default)\n"
        );
        assert!(why("grub.nothing").unwrap_err()[0].what.contains("has no resource grub.nothing"));
        assert!(why("grub").is_err());
    }
}
