//! Finding or making the keys: those that sign links, the one of the address hash, and those that sign mail.
//!
//! Two processes that start at once end up with the same keys. No key is ever printed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretSlice, SecretString};
use uuid::Uuid;

use super::SetupError;
use crate::address::AddressKey;
use crate::config::{Settings, decode_key};
use crate::db::Db;
use crate::link::KeyRing;
use crate::message::DkimKeys;

/// The row that says that a file of link keys was made beside this database.
const LINK_KEYS_MADE: &str = "link_keys_made";
/// The row of the address key or its check value, told apart by their first octet.
const ADDRESS_KEY: &str = "address_key";
const WHOLE_KEY: u8 = b'k';
const CHECK_VALUE: u8 = b'c';

pub(super) async fn link_keys(db: &Db, settings: &Settings) -> Result<KeyRing, SetupError> {
    if let Some(given) = &settings.link_keys {
        return Ok(KeyRing::parse(given.expose_secret())?);
    }
    if db.backend() == sea_orm::DbBackend::Postgres {
        return Err(SetupError::NoLinkKeys);
    }
    let Some(database) = db.sqlite_file() else { return Ok(KeyRing::parse(&KeyRing::new_key())?) };
    let path = beside(database);
    let shown = path.display().to_string();
    let failed = |error: io::Error| SetupError::LinkKeyFile { file: shown.clone(), why: error.to_string() };
    if !path.try_exists().map_err(failed)? && db.kept(LINK_KEYS_MADE).await?.is_some() {
        return Err(SetupError::LinkKeysGone(shown));
    }
    let held = read_or_make(&path).map_err(failed)?;
    let ring = KeyRing::parse(held.expose_secret())
        .map_err(|error| SetupError::LinkKeyFile { file: shown.clone(), why: error.to_string() })?;
    db.keep(LINK_KEYS_MADE, b"beside").await?;
    Ok(ring)
}

pub(super) async fn address_key(db: &Db, settings: &Settings) -> Result<AddressKey, SetupError> {
    let Some(given) = &settings.address_key else { return own_address_key(db).await };
    let key = decode_key(given.expose_secret()).and_then(AddressKey::new).ok_or(SetupError::NoAddressKey)?;
    let check = marked(CHECK_VALUE, &key.check_value());
    let stored = db.keep(ADDRESS_KEY, &check).await?;
    if stored == check {
        return Ok(key);
    }
    if stored == marked(WHOLE_KEY, key.bytes()) {
        // The operator has taken the key out of the database: from now on it holds the check value alone.
        db.replace_kept(ADDRESS_KEY, &check).await?;
        return Ok(key);
    }
    Err(SetupError::WrongAddressKey)
}

async fn own_address_key(db: &Db) -> Result<AddressKey, SetupError> {
    let stored = match db.kept(ADDRESS_KEY).await? {
        Some(stored) => stored,
        None => db.keep(ADDRESS_KEY, &marked(WHOLE_KEY, AddressKey::generate().bytes())).await?,
    };
    match stored.split_first() {
        Some((&WHOLE_KEY, key)) => AddressKey::new(key.to_vec()).ok_or(SetupError::DamagedAddressKey),
        Some((&CHECK_VALUE, _)) => Err(SetupError::NoAddressKey),
        _ => Err(SetupError::DamagedAddressKey),
    }
}

/// Longest file of a private key in octets.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// Reads the keys that sign mail.
pub(super) fn dkim_keys(settings: &Settings) -> Result<DkimKeys, SetupError> {
    let mut keys = DkimKeys::default();
    for entry in &settings.dkim {
        let (name, file) = (entry.key_file_name(), entry.key_file.display().to_string());
        let pem = match private_file(&entry.key_file) {
            Ok(pem) => pem,
            Err(why) => return Err(SetupError::DkimKeyFile { name, file, why }),
        };
        keys.add(&entry.domain, &entry.selector, pem.expose_secret()).map_err(|why| SetupError::DkimKey {
            name,
            file,
            why,
        })?;
    }
    Ok(keys)
}

/// What a file holds that others should not read; warns when they can.
fn private_file(path: &Path) -> io::Result<SecretSlice<u8>> {
    let file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o007 != 0 {
        tracing::warn!(
            file = %path.display(),
            "everyone on this machine may read or write a private key; take that away with chmod o-rwx"
        );
    }
    let mut held = Vec::new();
    file.take(MAX_KEY_FILE).read_to_end(&mut held)?;
    Ok(SecretSlice::from(held))
}

fn marked(mark: u8, value: &[u8]) -> Vec<u8> {
    let mut marked = Vec::with_capacity(value.len() + 1);
    marked.push(mark);
    marked.extend_from_slice(value);
    marked
}

/// `tidings.db` keeps its keys in `tidings.db.link-keys`.
fn beside(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".link-keys");
    PathBuf::from(name)
}

/// Reads the file, or makes it whole under another name and links it into place: whoever comes second reads the first
/// one's key, and nobody ever reads half a file.
fn read_or_make(path: &Path) -> io::Result<SecretString> {
    match fs::read_to_string(path) {
        Ok(held) => return Ok(SecretString::from(held)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", Uuid::now_v7().simple()));
    let draft = PathBuf::from(draft);
    let placed = write_draft(&draft).and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    });
    let removed = fs::remove_file(&draft);
    placed?;
    removed?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    fs::read_to_string(path).map(SecretString::from)
}

fn write_draft(draft: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    writeln!(file, "{}", KeyRing::new_key())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use base64::Engine as _;

    use super::*;
    use crate::app::App;

    fn settings(folder: &Path) -> Settings {
        Settings::local(&format!("sqlite://{}", folder.join("t.db").display()))
    }

    fn address_key_setting(byte: u8) -> Option<SecretString> {
        Some(SecretString::from(base64::engine::general_purpose::STANDARD.encode([byte; 32])))
    }

    async fn refusal(settings: Settings) -> String {
        App::open(settings, true).await.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn many_processes_that_start_at_once_end_up_with_the_same_link_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db.link-keys");
        let keys: Vec<String> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| read_or_make(&path).unwrap().expose_secret().to_owned()))
                .collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn keys_stay_the_same_over_restarts_and_a_lost_key_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let first = App::open(settings(folder.path()), true).await.unwrap();
        let mode = fs::metadata(folder.path().join("t.db")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "the database holds addresses and the key of their hashes");
        let again = App::open(settings(folder.path()), false).await.unwrap();
        assert_eq!(first.address_key.bytes(), again.address_key.bytes());
        fs::remove_file(folder.path().join("t.db.link-keys")).unwrap();
        assert!(refusal(settings(folder.path())).await.contains("missing"));
    }

    #[tokio::test]
    async fn another_address_key_refuses_to_start() {
        let folder = tempfile::tempdir().unwrap();
        let mut with_key = settings(folder.path());
        with_key.address_key = address_key_setting(7);
        App::open(with_key.clone(), true).await.unwrap();
        App::open(with_key, true).await.unwrap();
        let mut other = settings(folder.path());
        other.address_key = address_key_setting(8);
        assert!(refusal(other).await.contains("wrong address key"));
        assert!(refusal(settings(folder.path())).await.contains("must be set"));
    }

    #[tokio::test]
    async fn a_key_taken_out_of_the_database_leaves_a_check_value() {
        let folder = tempfile::tempdir().unwrap();
        let app = App::open(settings(folder.path()), true).await.unwrap();
        let mut out = settings(folder.path());
        let key = base64::engine::general_purpose::STANDARD.encode(app.address_key.bytes());
        out.address_key = Some(SecretString::from(key));
        App::open(out.clone(), true).await.unwrap();
        assert!(refusal(settings(folder.path())).await.contains("must be set"));
        App::open(out, true).await.unwrap();
    }
}
