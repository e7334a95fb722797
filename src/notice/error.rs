//! Why something cannot be done to a notice. Pure.

use sea_orm::DbErr;

use super::State;

/// Why something cannot be done to a notice.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// There is none of this id.
    #[error("there is no such notice")]
    Gone,
    /// Its state forbids it.
    #[error("The notice is {state}; it can be {done} only while it is running.")]
    WrongState {
        /// The state.
        state: State,
        /// What was wanted, as a participle.
        done: &'static str,
    },
    /// A field cannot be used: its JSON pointer, and why.
    #[error("{0} {1}")]
    Flaw(String, String),
    /// Its messages cannot be made from the policy's template.
    #[error("the template of the policy's notices cannot be used: {0}")]
    Template(String),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbErr),
}
