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
    #[error("{}; a notice can be {done} only before that.", what_came(*state))]
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
    /// Nothing is there to be done, or something else.
    #[error("{0}")]
    Conflict(String),
    /// Somebody else has to do it.
    #[error("{0}")]
    SomebodyElse(String),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbErr),
}

/// What became of the notice, as the beginning of a sentence.
fn what_came(state: State) -> &'static str {
    match state {
        State::Running => "The notice is running",
        State::InEffect => "The change has taken effect",
        State::Withdrawn => "The notice was withdrawn",
    }
}
