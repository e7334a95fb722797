//! Starting: migrations, keys and settings that cannot be used.

use sea_orm::ConnectionTrait as _;
use tidings::app::App;

use crate::harness::{Database, LINK_KEYS};

on_both! {
    async fn several_processes_that_migrate_at_once_do_not_collide(database: Database) {
        let fresh = database.empty_again().await;
        let mut settings = fresh.settings();
        settings.link_keys = Some(LINK_KEYS.into());
        let opened = futures_util::future::join_all((0..4).map(|_| App::open(settings.clone(), true))).await;
        let keys: Vec<Vec<u8>> =
            opened.into_iter().map(|app| app.unwrap().address_key.bytes().to_vec()).collect();
        assert!(keys.iter().all(|key| *key == keys[0]), "all must hold the same address key");
    }

    async fn a_database_newer_than_the_program_is_refused(database: Database) {
        let mut settings = database.settings();
        settings.link_keys = Some(LINK_KEYS.into());
        let app = App::open(settings.clone(), true).await.unwrap();
        let write = app.db.begin().await.unwrap();
        let later = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_later', 1)";
        write.execute_unprepared(later).await.unwrap();
        write.commit().await.unwrap();
        for migrate in [true, false] {
            let refused = App::open(settings.clone(), migrate).await.err().unwrap().to_string();
            assert!(refused.contains("m9999_later") && refused.contains("run that version"), "{refused}");
        }
    }
}

#[tokio::test]
async fn link_keys_must_be_set_on_postgresql() {
    let database = Database::postgres().await;
    let mut settings = database.settings();
    settings.link_keys = None;
    let refused = App::open(settings, true).await.err().unwrap().to_string();
    assert!(refused.contains("TIDINGS_LINK_KEYS"), "{refused}");
}
