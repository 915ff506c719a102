//! Other Keyways behind the same address.

use super::Peer;
use super::database::address;
use super::document::{Section, Value, shown};
use super::map::check_entry_keys;
use super::settings::{self, Kind};

/// Where clients of a Keyway connect, as `listen` has it.
const PORT: u16 = 6432;

/// Which instance this is, where the file says so, and the others.
pub fn peers(top: &Section<'_>) -> (Option<u16>, Vec<Peer>) {
    let instance = top.optional_count(&settings::INSTANCE).and_then(|it| u16::try_from(it).ok());
    let Some(value) = top.get(settings::PEERS.key) else { return (instance, Vec::new()) };
    let Some(list) = value.get_ref().as_array() else {
        top.wrong_kind(&settings::PEERS, value, "[{ instance = 2, address = \"host:port\" }, ...]");
        return (instance, Vec::new());
    };
    if !list.is_empty() && !top.has(settings::INSTANCE.key) {
        let message = "`peers` without `instance`: the others cannot name this one";
        top.add(value.span().start, message, "instance = a number that no other has");
    }
    let mut peers: Vec<Peer> = Vec::new();
    for entry in list.iter() {
        let Some(peer) = peer(top, entry) else { continue };
        if peers.iter().any(|it| it.instance == peer.instance) {
            let message = format!("instance {} stands twice in `peers`", peer.instance);
            top.add(entry.span().start, message, "each instance once");
        } else {
            peers.push(peer);
        }
    }
    (instance, peers)
}

fn peer(top: &Section<'_>, entry: Value<'_>) -> Option<Peer> {
    check_entry_keys(top, entry, &["instance", "address"]);
    let table = entry.get_ref().as_table()?;
    let Kind::OptionalCount { min, max } = settings::INSTANCE.kind else { return None };
    let number = table.get("instance").and_then(|it| it.get_ref().as_integer());
    let number = number.and_then(|it| u16::from_str_radix(it.as_str(), it.radix()).ok());
    let instance = number.filter(|it| (min..=max).contains(&usize::from(*it)));
    if instance.is_none() {
        let message = "a peer has no `instance`, or one out of bounds";
        top.add(entry.span().start, message, format!("instance = a whole number from {min} to {max}"));
    }
    let text = table.get("address").and_then(|it| it.get_ref().as_str());
    let address = text.and_then(|it| address(it, PORT));
    if address.is_none() {
        let found = table.get("address").map_or_else(|| "nothing".to_owned(), shown);
        let message = format!("the address of a peer is {found}");
        top.add(entry.span().start, message, "address = \"host:port\", an IPv6 address in brackets");
    }
    Some(Peer { instance: instance?, address: address? })
}
