//! What every part of a running program shares: the database, the settings, the keys.
//!
//! [`App::open`] is the one way to come by it: it opens and migrates the database and finds or makes the keys, so that
//! nothing ever runs with a wrong one.

use std::ops::Deref;
use std::sync::Arc;

use sea_orm::DbErr;
use secrecy::ExposeSecret;

use crate::address::AddressKey;
use crate::clock::Clock;
use crate::config::Settings;
use crate::db::{Db, DbSetupError, Gather, Observer};
use crate::guesses::Guesses;
use crate::link::{KeyRing, KeyRingError, Link};
use crate::message::{DkimKeys, KeyError};
use crate::opt_out::OptOut;
use crate::opt_out::rows::{Refused, Subject};
use crate::under_way::UnderWay;

mod keys;

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
    /// The keys that sign mail.
    pub dkim_keys: DkimKeys,
    /// The wrong links and keys that came.
    pub guesses: Guesses,
    /// The opt-outs to be recorded: those that come at the same time share a transaction.
    pub opt_outs: Gather<OptOut, Option<Result<Refused, DbErr>>>,
    /// The links that people follow: those that come at the same time are looked up together.
    pub links: Gather<Link, Result<Subject, DbErr>>,
    /// What this process has in hand, and whether it is to stop.
    pub under_way: UnderWay,
}

/// How many opt-outs share a transaction at most, and links a look.
const TOGETHER: usize = 32;
/// How many such transactions, and looks, may be under way at the same time.
const AT_A_TIME: usize = 2;

/// Why the program cannot start: one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The database.
    #[error(transparent)]
    Db(#[from] DbSetupError),
    /// The database did not answer a question about the keys.
    #[error("the database failed: {0}; try again")]
    Asking(#[from] DbErr),
    /// The link keys cannot be used.
    #[error(transparent)]
    LinkKeys(#[from] KeyRingError),
    /// PostgreSQL without link keys: every process would make its own.
    #[error(
        "TIDINGS_LINK_KEYS must be set when the database is PostgreSQL; make a key with `tidings key new`"
    )]
    NoLinkKeys,
    /// The file of link keys cannot be read or written.
    #[error("the file of link keys {file} cannot be used: {why}; check who may read and write it")]
    LinkKeyFile {
        /// Its path.
        file: String,
        /// What the operating system says, or what is wrong with the contents.
        why: String,
    },
    /// The database has seen a file of link keys that is gone now.
    #[error(
        "the file of link keys {0} is missing, and links in mail already sent hang on it; put it back from your backup or \
         set TIDINGS_LINK_KEYS"
    )]
    LinkKeysGone(String),
    /// The address key is not the database's.
    #[error(
        "wrong address key: TIDINGS_ADDRESS_KEY is not the key that this database was made with; set that one, since with \
         another every opt-out would be forgotten"
    )]
    WrongAddressKey,
    /// The database keeps a check value only.
    #[error(
        "TIDINGS_ADDRESS_KEY must be set: this database was made with a key that it does not keep itself"
    )]
    NoAddressKey,
    /// A file of a key that signs mail cannot be read.
    #[error("{name}: the file {file} cannot be read: {why}; check the path and who may read it")]
    DkimKeyFile {
        /// What the settings call it.
        name: String,
        /// Its path.
        file: String,
        /// What the operating system says.
        why: std::io::Error,
    },
    /// What a file holds cannot sign mail.
    #[error("{name}: the file {file} {why}")]
    DkimKey {
        /// What the settings call it.
        name: String,
        /// Its path.
        file: String,
        /// What is wrong with it, and what to do.
        why: KeyError,
    },
    /// What the database holds as the address key is none.
    #[error("the address key in the database is damaged; restore the settings table from your backup")]
    DamagedAddressKey,
}

impl App {
    /// Puts it together.
    pub fn new(
        db: Db,
        settings: Settings,
        link_keys: KeyRing,
        address_key: AddressKey,
        dkim_keys: DkimKeys,
    ) -> Self {
        db.seal_with(address_key.sealing_key());
        Self(Arc::new(Shared {
            db,
            settings,
            link_keys,
            address_key,
            dkim_keys,
            guesses: Guesses::default(),
            opt_outs: Gather::new(AT_A_TIME, TOGETHER),
            links: Gather::new(AT_A_TIME, TOGETHER),
            under_way: UnderWay::default(),
        }))
    }

    /// Opens the database that the settings name, migrates it (or only checks that it is up to date), and finds or makes
    /// the keys.
    ///
    /// # Errors
    /// Why the program cannot start.
    pub async fn open(settings: Settings, migrate: bool) -> Result<Self, SetupError> {
        Self::open_with_clock(settings, migrate, Clock::default()).await
    }

    /// Brings the database up to date and gives it its address key; needs no link keys.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub async fn migrate(settings: &Settings) -> Result<(), SetupError> {
        let db = Db::open(settings.database_url.expose_secret()).await?;
        db.migrate().await?;
        keys::address_key(&db, settings).await?;
        db.close().await;
        Ok(())
    }

    /// As [`App::open`], with a clock that a test can shift.
    ///
    /// # Errors
    /// As [`App::open`].
    pub async fn open_with_clock(
        settings: Settings,
        migrate: bool,
        clock: Clock,
    ) -> Result<Self, SetupError> {
        Self::open_observed(settings, migrate, clock, None).await
    }

    /// As [`App::open_with_clock`], with somebody who is told of every statement.
    ///
    /// # Errors
    /// As [`App::open`].
    pub async fn open_observed(
        settings: Settings,
        migrate: bool,
        clock: Clock,
        observer: Option<&Observer>,
    ) -> Result<Self, SetupError> {
        let dkim_keys = keys::dkim_keys(&settings)?;
        let db = Db::open_with_clock(settings.database_url.expose_secret(), clock).await?;
        if let Some(observer) = observer {
            db.tell_of_statements(observer);
        }
        if migrate {
            db.migrate().await?;
        } else {
            db.check_migrated().await?;
        }
        let link_keys = keys::link_keys(&db, &settings).await?;
        let address_key = keys::address_key(&db, &settings).await?;
        Ok(Self::new(db, settings, link_keys, address_key, dkim_keys))
    }
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
