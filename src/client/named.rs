//! Texts in which Keyway names the columns that the client leaves to the catalog (`route::Plan::column_lists`). A
//! statement that is prepared has those of the plan that it is routed by: when the catalog has others, it is another
//! statement for servers, under the client's name.

use std::sync::Arc;

use super::session::Session;
use super::statements::Statement;
use crate::backend::Backend;
use crate::proto::{Expect, Origin};
use crate::route::Plan;
use crate::sql::{ColumnLists, Moves, execute_names};
use crate::wire;

/// A Query with columns in it that the client's does not name.
pub(super) struct NamedQuery {
    message: Vec<u8>,
    moves: Arc<Moves>,
}

impl NamedQuery {
    pub fn new(lists: &ColumnLists, text: &str) -> NamedQuery {
        let (named, mut message) = (lists.name(text), Vec::new());
        wire::query(&mut message, &named.text);
        NamedQuery { message, moves: Arc::new(named.moves) }
    }

    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Says what will be owed, and gives the bytes.
    pub fn compose(&self, server: &mut Backend) -> &[u8] {
        let expect = Expect::Query(Origin::Client);
        server.pipeline.push(expect);
        server.pipeline.move_errors(expect, &self.moves);
        server.statements.set_unnamed(None);
        &self.message
    }
}

impl Session {
    /// The statement as servers are to have it by the newest plan, and that plan.
    pub fn current(&self, mut statement: Arc<Statement>) -> (Arc<Statement>, Arc<Plan>) {
        let (router, registry) = (&self.database.router, &self.database.statements);
        loop {
            let plan = statement.plan(router);
            if statement.is_of(&plan) {
                return (statement, plan);
            }
            statement = registry.renewed(&statement, router.plan(statement.text()));
        }
    }

    /// As `current`, of a statement that the client has by this name, which is that one's from here on.
    pub fn current_of(&mut self, name: &[u8], found: Arc<Statement>) -> (Arc<Statement>, Arc<Plan>) {
        let id = found.id;
        let (statement, plan) = self.current(found);
        if statement.id != id && self.names.get(name).is_some_and(|it| it.id == id) {
            self.names.insert(name, &statement);
        }
        (statement, plan)
    }

    /// What `text` names by EXECUTE is as servers are to have it.
    pub fn renew_executed(&mut self, text: &str) {
        for it in execute_names(text) {
            let name = it.name.as_bytes();
            if let Some(found) = self.names.get(name).cloned() {
                self.current_of(name, found);
            }
        }
    }
}
