//! Datagrams beside the protocol that counts: notices to nodes whose profile has changed or that have an order, and signs of life from
//! nodes. Nothing is believed of a sign but that something was heard in the node's name from its address.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use gatehouse_model::{NodeName, State};
use tokio::net::UdpSocket;
use tokio::sync::broadcast::error::RecvError;

use super::Server;
use crate::control::board::now_millis;
use crate::wire::{Notice, Sign};

/// Notices may be lost, so that they are sent again to nodes that have not come: after so many seconds.
const AGAIN: [u64; 3] = [0, 2, 4];
/// So many notices are sent at once, and then a pause is made: a thousand nodes then come within a second, and a few
/// are told without any delay.
const AT_ONCE: usize = 50;
/// How often nodes are told that have not fetched their order.
const REMIND: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);

/// Opens the port at which signs are heard. It is a hint's: where another program holds it, nodes are told from any
/// port, and nobody hears their signs.
pub(super) async fn open(server: &Server, address: SocketAddr) -> std::io::Result<Arc<UdpSocket>> {
    let socket = match UdpSocket::bind(address).await {
        Ok(socket) => socket,
        Err(error) => {
            let text = format!("UDP port {}: {error}; nodes poll all the same", address.port());
            server.board.say("server", "listening for signs of nodes", State::Failed, text);
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?
        }
    };
    Ok(Arc::new(socket))
}

/// Hears signs until the runtime ends.
pub(super) async fn listen(socket: Arc<UdpSocket>, server: Arc<Server>) {
    let mut bytes = [0; 512];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut bytes).await else {
            // An error that an earlier datagram brought back.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let sign = std::str::from_utf8(&bytes[..length]).ok().and_then(|text| text.parse::<Sign>().ok());
        let Some(sign) = sign else { continue };
        let now = server.current.get();
        let known = now.site.node(sign.node.as_str());
        let own = known.is_some_and(|node| from.ip() == node.address);
        if own {
            server.board.of_profile(&sign.node, |profile| profile.heard = Some(now_millis()));
        }
    }
}

/// Tells nodes whose profile changes, and those that have an order, until the server is gone.
pub(super) async fn follow(socket: Arc<UdpSocket>, server: Weak<Server>) {
    tokio::spawn(remind(Arc::clone(&socket), Weak::clone(&server)));
    let Some(mut changes) = server.upgrade().map(|server| server.profiles.subscribe()) else { return };
    loop {
        let nodes = match changes.recv().await {
            Ok(nodes) => nodes,
            // Those that were lost poll.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let Some(server) = server.upgrade() else { return };
        tokio::spawn(tell(Arc::clone(&socket), server, nodes));
    }
}

/// Tells nodes that their profile has changed.
async fn tell(socket: Arc<UdpSocket>, server: Arc<Server>, nodes: Arc<[NodeName]>) {
    for pause in AGAIN {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        for (index, node) in nodes.iter().enumerate() {
            if index > 0 && index % AT_ONCE == 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let Some((notice, address)) = notice(&server, node) else { continue };
            // A node that is off is told by nobody; it asks when it starts.
            let _ = socket.send_to(notice.to_string().as_bytes(), address).await;
        }
    }
}

/// Tells nodes that have an order, until they have fetched it or the server is gone.
async fn remind(socket: Arc<UdpSocket>, server: Weak<Server>) {
    loop {
        tokio::time::sleep(REMIND).await;
        let Some(server) = server.upgrade() else { return };
        let now = server.current.get();
        for node in server.orders.unseen() {
            let Some(known) = now.site.node(node.as_str()) else { continue };
            let address = SocketAddr::from((known.address, now.site.server.notify_port));
            let page = server.profiles.page(&node);
            let etag = page.map(|page| page.etag.trim_matches('"').to_owned()).unwrap_or_default();
            let _ = socket.send_to(Notice { node, etag }.to_string().as_bytes(), address).await;
        }
    }
}

/// What a node is told and where; nothing if it has come already.
fn notice(server: &Server, node: &NodeName) -> Option<(Notice, SocketAddr)> {
    let now = server.current.get();
    let known = now.site.node(node.as_str())?;
    let etag = server.profiles.page(node)?.etag.trim_matches('"').to_owned();
    let mut has_come = false;
    server.board.of_profile(node, |profile| {
        has_come = profile.fetched.as_ref().is_some_and(|fetched| fetched.etag == etag);
    });
    let address = SocketAddr::from((known.address, now.site.server.notify_port));
    (!has_come).then(|| (Notice { node: node.clone(), etag }, address))
}
