//! The history of the schema, one file a migration, oldest first.
//!
//! A migration that has landed is never edited. Migrations hold literals only and never import the entities, so that
//! they mean tomorrow what they meant on the day they were written.

use sea_orm_migration::prelude::*;

mod m0001_main_job;
mod m0002_logos;
mod m0003_queue;
mod m0004_limits;
mod m0005_room;
mod m0006_policies;
mod m0007_joined;
mod m0008_bounces;
mod m0009_message_ids;
mod m0010_corrections;
mod m0011_evidence;
mod m0012_notice_rules;
mod m0013_local_dates;
mod m0014_second_key;

/// The ordered list of migrations.
pub(crate) struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_main_job::Migration),
            Box::new(m0002_logos::Migration),
            Box::new(m0003_queue::Migration),
            Box::new(m0004_limits::Migration),
            Box::new(m0005_room::Migration),
            Box::new(m0006_policies::Migration),
            Box::new(m0007_joined::Migration),
            Box::new(m0008_bounces::Migration),
            Box::new(m0009_message_ids::Migration),
            Box::new(m0010_corrections::Migration),
            Box::new(m0011_evidence::Migration),
            Box::new(m0012_notice_rules::Migration),
            Box::new(m0013_local_dates::Migration),
            Box::new(m0014_second_key::Migration),
        ]
    }
}
