//! D1: a key that cannot sign well ends the start, with words that say which entry it is and what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use tidings::app::App;
use tidings::config::DkimEntry;

use super::{DOMAIN, Keys, openssl};
use crate::harness::{Database, LINK_KEYS, Process, run_in, said, source, tools};

/// What the start says to this key file.
async fn refusal(file: &str) -> String {
    let database = Database::sqlite();
    let mut settings = database.settings();
    settings.link_keys = Some(LINK_KEYS.into());
    settings.dkim = vec![DkimEntry::new(DOMAIN, "s1", file)];
    App::open(settings, true).await.err().map_or_else(|| "taken".to_owned(), |error| error.to_string())
}

#[tokio::test]
async fn d1_keys_that_are_short_or_no_private_keys_for_dkim_are_refused_with_a_way_out() {
    let keys = Keys::none();
    let path = |name: &str| keys.path(name);
    for bits in ["512", "1024", "2047", "2048", "4104"] {
        openssl(&["genrsa", "-out", &path(bits), bits]);
    }
    openssl(&["genrsa", "-traditional", "-out", &path("1024.pkcs1"), "1024"]);
    openssl(&["pkey", "-in", &path("2048"), "-pubout", "-out", &path("public")]);
    openssl(&["pkey", "-in", &path("2048"), "-aes128", "-passout", "pass:x", "-out", &path("encrypted")]);
    openssl(&["pkey", "-in", &path("2048"), "-outform", "DER", "-out", &path("der")]);
    openssl(&["genpkey", "-algorithm", "ed448", "-out", &path("ed448")]);
    openssl(&["genpkey", "-algorithm", "X25519", "-out", &path("x25519")]);
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &path("p256")]);
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &path("p256.sec1")]);
    fs::write(path("empty"), "").unwrap();
    let whole = fs::read_to_string(path("2048")).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    // A line of the numbers taken out, and one put in another's place.
    fs::write(path("damaged"), [&lines[..10], &lines[11..]].concat().join("\n")).unwrap();
    fs::write(path("swapped"), [&lines[..10], &[lines[11], lines[10]], &lines[12..]].concat().join("\n"))
        .unwrap();
    for (file, words) in [
        ("512", "512 bits"),
        ("1024", "1024 bits"),
        ("1024.pkcs1", "1024 bits"),
        ("2047", "2047 bits"),
        ("4104", "4104 bits"),
        ("public", "public key"),
        ("encrypted", "passphrase"),
        ("der", "no private key in PEM form"),
        ("empty", "no private key in PEM form"),
        ("ed448", "another algorithm"),
        ("x25519", "another algorithm"),
        ("p256", "another algorithm"),
        ("p256.sec1", "another algorithm"),
        ("damaged", "damaged"),
        ("swapped", "damaged"),
        ("nowhere", "cannot be read"),
        ("", "cannot be read"),
    ] {
        let error = refusal(&path(file)).await;
        assert!(error.contains("dkim[1].key_file") && error.contains(words), "{file}: {error}");
        assert!(error.contains(&path(file)), "{file}: {error}");
        assert!(!error.contains(lines[5]), "an error shows the key");
    }
}

#[tokio::test]
async fn d1_rsa_keys_of_both_forms_and_ed25519_keys_are_taken() {
    let keys = Keys::both();
    openssl(&["genrsa", "-traditional", "-out", &keys.path("pkcs1"), "2048"]);
    assert!(fs::read_to_string(keys.path("pkcs1")).unwrap().contains("BEGIN RSA PRIVATE KEY"));
    assert_eq!(refusal(&keys.path("pkcs1")).await, "taken");
    for entry in &keys.entries {
        assert_eq!(refusal(entry.key_file.to_str().unwrap()).await, "taken");
    }
}

#[test]
fn d1_a_short_key_in_the_settings_file_ends_the_program_by_the_name_of_its_entry() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.pem");
    openssl(&["genrsa", "-out", good.to_str().unwrap(), "2048"]);
    openssl(&["genrsa", "-out", folder.path().join("short.pem").to_str().unwrap(), "1024"]);
    let entry = |selector: &str, file: &str| {
        format!("[[dkim]]\ndomain = \"acme.example\"\nselector = \"{selector}\"\nkey_file = \"{file}\"\n")
    };
    let settings = entry("s1", good.to_str().unwrap()) + &entry("s2", "short.pem");
    fs::write(folder.path().join("tidings.toml"), settings).unwrap();
    let output = run_in(folder.path(), &["serve"], &[("TIDINGS_LISTEN", "127.0.0.1:0")]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("dkim[2].key_file in tidings.toml"), "{}", said(&output));
    assert!(said(&output).contains("1024 bits"), "{}", said(&output));
    let output = run_in(folder.path(), &["serve"], &[("TIDINGS_DKIM", "acme.example:s1:short.pem")]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("dkim[1].key_file in TIDINGS_DKIM"), "{}", said(&output));
}

#[tokio::test]
async fn a_key_that_everyone_may_read_is_told_of_and_used() {
    let keys = Keys::both();
    let [rsa, ed25519] = &keys.entries[..] else { panic!("two keys") };
    fs::set_permissions(&rsa.key_file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&ed25519.key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let entries: Vec<String> = keys
        .entries
        .iter()
        .map(|entry| format!("{}:{}:{}", entry.domain, entry.selector, entry.key_file.display()))
        .collect();
    let database = Database::sqlite();
    let mut process = Process::serve(&database, &[], &[("TIDINGS_DKIM", &entries.join(","))]).await;
    assert!(process.terminate().await.success());
    let logs = process.logs();
    let told: Vec<&str> = logs.lines().filter(|line| line.contains("private key")).collect();
    assert_eq!(told.len(), 1, "{logs}");
    assert!(
        told[0].contains(&rsa.key_file.display().to_string()) && told[0].contains("chmod o-rwx"),
        "{logs}"
    );
}

#[tokio::test]
async fn the_keys_and_records_that_the_readme_makes_sign_and_verify() {
    let readme = fs::read_to_string(source().join("README.md")).unwrap();
    let script = readme.split("```sh\n").find(|block| block.contains("openssl genrsa")).unwrap();
    let script = script.split("```").next().unwrap();
    let mut keys = Keys::none();
    let mut bash = Command::new("bash");
    bash.args(["-euc", script]).current_dir(keys.folder.path());
    let records = String::from_utf8(tools::run(bash, b"").stdout).unwrap();
    for (selector, record) in ["s1", "s2"].into_iter().zip(records.lines()) {
        let file = keys.path(&format!("{selector}.pem"));
        keys.publish(DOMAIN, selector, &file, record);
    }
    let tidings = keys.start(Database::sqlite()).await;
    let mail = tidings.mail_of("acme", "service", "zoe@people.example.com").await;
    keys.all_pass(&[mail.data], &["s1", "s2"]);
    tidings.stop().await;
}
