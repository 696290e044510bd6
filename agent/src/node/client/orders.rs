//! The host's orders, fetched and answered.

use gatehouse_model::{Doing as _, Fault};

use super::{Client, LONGEST, good};
use crate::wire::{Given, Outcome};

impl Client {
    /// What the host asks of this node, if anything. A server of before there were orders has none.
    ///
    /// # Errors
    /// It cannot be reached, or asks for what this agent does not know.
    pub fn order(&self) -> Result<Option<Given>, Fault> {
        let url = self.tls("/orders");
        let work = || {
            let answer = self.agent.get(&url).call()?;
            if matches!(answer.status().as_u16(), 204 | 404) {
                return Ok(None);
            }
            Ok::<_, Fault>(Some(serde_json::from_str(&good(answer, LONGEST)?)?))
        };
        work().doing(|| format!("fetching {url}"))
    }

    /// Answers an order. That nobody waits for it any longer is no fault.
    ///
    /// # Errors
    /// The server cannot be reached or does not want it.
    pub fn answer_order(&self, id: &str, outcome: &Outcome) -> Result<(), Fault> {
        let url = self.tls(&format!("/orders/{id}"));
        let work = || {
            let body = serde_json::to_string(outcome)?;
            let answer = self.agent.post(&url).header("content-type", "application/json").send(&body)?;
            if answer.status().as_u16() == 404 {
                return Ok(());
            }
            good(answer, LONGEST).map(drop)
        };
        work().doing(|| format!("sending to {url}"))
    }
}
