//! What every part of a running program shares: the database, the settings, the keys.

use std::ops::Deref;
use std::sync::Arc;

use crate::address::AddressKey;
use crate::config::Settings;
use crate::db::Db;
use crate::link::KeyRing;

/// A handle to what is shared; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// What is shared.
pub struct Shared {
    /// The database.
    pub db: Db,
    /// The settings.
    pub settings: Settings,
    /// The keys that sign and verify links.
    pub link_keys: KeyRing,
    /// The key of the address hash.
    pub address_key: AddressKey,
}

impl App {
    /// Puts it together.
    pub fn new(db: Db, settings: Settings, link_keys: KeyRing, address_key: AddressKey) -> Self {
        Self(Arc::new(Shared { db, settings, link_keys, address_key }))
    }
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
