//! The envelope sender of a delivery: an address of its own, so that a bounce names its delivery and none can be forged.

use uuid::Uuid;

use super::KeyRing;
use crate::id::DeliveryId;

/// Octets of the tag that are kept: 80 bits.
const TAG: usize = 10;

/// The part before the @: `b+`, the delivery, a dot, a tag; 55 characters that survive a change of case.
pub fn envelope_local(delivery: DeliveryId, ring: &KeyRing) -> String {
    let id = delivery.0.simple();
    format!("b+{id}.{}", tag(delivery, ring, ring.signing_id()).unwrap_or_default())
}

/// The delivery that such a local part names, when one of the ring's keys made it.
pub fn delivery_of_envelope(local: &str, ring: &KeyRing) -> Option<DeliveryId> {
    let local = local.to_ascii_lowercase();
    let (id, given) = local.strip_prefix("b+")?.split_once('.')?;
    let delivery = DeliveryId(Uuid::try_parse(id).ok()?);
    ring.ids()
        .filter_map(|key| tag(delivery, ring, key))
        .any(|tag| bool::from(subtle::ConstantTimeEq::ct_eq(tag.as_bytes(), given.as_bytes())))
        .then_some(delivery)
}

fn tag(delivery: DeliveryId, ring: &KeyRing, key: &str) -> Option<String> {
    let mut payload = b"envelope\0".to_vec();
    payload.extend_from_slice(delivery.0.as_bytes());
    let tag = ring.tag(key, &payload)?;
    let digit = |four: u8| char::from(b"0123456789abcdef"[usize::from(four)]);
    Some(tag.iter().take(TAG).flat_map(|octet| [digit(octet >> 4), digit(octet & 15)]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_sender_names_its_delivery_and_cannot_be_forged() {
        let old = KeyRing::parse(&KeyRing::new_key()).unwrap();
        let both = KeyRing::parse(&format!("{},{}", KeyRing::new_key(), "old:".to_owned() + &"A".repeat(44)));
        assert!(both.is_ok());
        let delivery = DeliveryId::new();
        let local = envelope_local(delivery, &old);
        assert!(local.len() <= 64, "{local}");
        assert_eq!(delivery_of_envelope(&local.to_uppercase().replace("B+", "b+"), &old), Some(delivery));
        assert_eq!(delivery_of_envelope(&local, &both.unwrap()), None);
        let mut forged = local.into_bytes();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert_eq!(delivery_of_envelope(&String::from_utf8(forged).unwrap(), &old), None);
    }
}
