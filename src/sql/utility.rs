//! What each statement of a text is, utilities included.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    CopyStmt, CreateTableAsStmt, DeclareCursorStmt, DiscardMode, ExplainStmt, FetchDirection, FetchStmt,
    IntoClause, Node, OnCommitAction, ParseResult, RangeVar, TransactionStmt, TransactionStmtKind,
    VariableSetKind, VariableSetStmt, a_const,
};

use super::expression::boolean;
use super::facts::{
    Assigned, CopyForm, CopyFormat, CopyFrom, CursorStatement, Facts, FetchRows, Isolation, Level, LevelRole,
    SchemaChange, SetStatement, Utility,
};
use super::lexer::{Lexer, TokenKind};
use super::query::{Reader, table_relation};
use super::scan::Literal;

/// `CURSOR_OPT_HOLD` of `parsenodes.h`.
const CURSOR_OPT_HOLD: i32 = 0x20;
const CURSOR_OPT_BINARY: i32 = 0x1;
const CURSOR_OPT_SCROLL: i32 = 0x2;
/// `FETCH_ALL` there.
const FETCH_ALL: i64 = i64::MAX;

const TEMPORARY: &str = "temporary object";

pub(super) fn facts(text: &str, literals: &[Literal], tree: &ParseResult) -> Facts {
    let statements = tree.stmts.iter().filter_map(|it| it.stmt.as_ref()?.node.as_ref());
    let read = |node: &NodeEnum| {
        let mut reader = Reader::new(text, literals);
        reader.statement(node);
        reader.statement
    };
    Facts { statements: statements.map(read).collect() }
}

impl Reader<'_> {
    fn is(&mut self, utility: Utility) {
        self.statement.utility = Some(utility);
    }

    fn statement(&mut self, node: &NodeEnum) {
        match node {
            NodeEnum::SelectStmt(it) => {
                self.select(it, None, LevelRole::Root);
                if let Some(into) = into(it) {
                    self.create_as(into);
                }
            }
            NodeEnum::InsertStmt(_)
            | NodeEnum::UpdateStmt(_)
            | NodeEnum::DeleteStmt(_)
            | NodeEnum::MergeStmt(_) => {
                let node = Some(Box::new(Node { node: Some(node.clone()) }));
                self.inner_query(&node, None, LevelRole::Root);
            }
            NodeEnum::ExplainStmt(it) => self.explain(it),
            NodeEnum::TransactionStmt(it) => self.is(transaction(it)),
            NodeEnum::VariableSetStmt(it) => {
                let utility = set(it, self.text, self.literals);
                self.is(utility);
            }
            NodeEnum::VariableShowStmt(it) => self.is(Utility::Show(it.name.to_ascii_lowercase())),
            NodeEnum::CopyStmt(it) => self.copy(it),
            NodeEnum::CreateTableAsStmt(it) => self.create_table_as(it),
            NodeEnum::DeclareCursorStmt(it) => self.declare(it),
            other => self.session_statement(other),
        }
    }

    fn session_statement(&mut self, node: &NodeEnum) {
        let utility = match node {
            NodeEnum::FetchStmt(it) => Utility::Cursor(fetch(it)),
            NodeEnum::ClosePortalStmt(it) if it.portalname.is_empty() => {
                Utility::Cursor(CursorStatement::CloseAll)
            }
            NodeEnum::ClosePortalStmt(it) => {
                Utility::Cursor(CursorStatement::Close { name: it.portalname.clone() })
            }
            NodeEnum::DiscardStmt(it) if it.target() == DiscardMode::DiscardAll => Utility::DiscardAll,
            NodeEnum::DiscardStmt(_) => Utility::SessionRelease,
            NodeEnum::UnlistenStmt(it) => {
                Utility::Unlisten(Some(it.conditionname.clone()).filter(|it| !it.is_empty()))
            }
            NodeEnum::DeallocateStmt(it) if it.name.is_empty() => Utility::DeallocateAll,
            NodeEnum::DeallocateStmt(it) => Utility::Deallocate(it.name.clone()),
            NodeEnum::PrepareStmt(_) => Utility::Session("PREPARE"),
            NodeEnum::ExecuteStmt(_) => Utility::Session("EXECUTE"),
            NodeEnum::ListenStmt(it) => Utility::Listen(it.conditionname.clone()),
            NodeEnum::LoadStmt(_) => Utility::Session("LOAD"),
            NodeEnum::DoStmt(_) => Utility::Session("DO"),
            NodeEnum::CallStmt(_) => Utility::Session("CALL"),
            NodeEnum::NotifyStmt(_) => Utility::Notify,
            NodeEnum::LockStmt(it) => {
                self.tables(it.relations.iter());
                Utility::Lock
            }
            NodeEnum::ConstraintsSetStmt(_) => Utility::SetConstraints,
            NodeEnum::CheckPointStmt(_) => Utility::Server,
            other => match temporary(other, self.text) {
                Some(true) => Utility::Session(TEMPORARY),
                Some(false) => {
                    self.statement.schema_change = schema_change(other);
                    Utility::Ddl
                }
                None => return self.unknown("a statement of a kind that Keyway does not read"),
            },
        };
        self.is(utility);
    }

    fn tables<'n>(&mut self, nodes: impl Iterator<Item = &'n Node>) {
        let mut level = Level::new(LevelRole::Root, None);
        for node in nodes {
            if let Some(NodeEnum::RangeVar(it)) = &node.node {
                level.relations.push(table_relation(it));
            }
        }
        self.statement.levels.push(level);
    }

    fn explain(&mut self, it: &ExplainStmt) {
        let Some(query) = it.query.as_ref().and_then(|it| it.node.as_ref()) else { return };
        self.statement(query);
        let mut analyze = false;
        for option in &it.options {
            let Some(NodeEnum::DefElem(option)) = &option.node else { continue };
            if option.defname == "keyway" {
                self.statement.explains_routing = it.options.len() == 1 && option.arg.is_none();
            }
            if option.defname == "analyze" {
                let off = option.arg.as_deref().and_then(word).is_some_and(|it| it == "off" || it == "false");
                // A literal's value is not fixed by the fingerprint: taken to be on.
                analyze = !off || self.has_literal_value(option.location);
            }
        }
        self.statement.explain = Some(analyze);
    }

    /// Whether the option that starts at `location` has a literal as its value.
    fn has_literal_value(&self, location: i32) -> bool {
        let Some(rest) = usize::try_from(location).ok().and_then(|it| self.text.get(it..)) else {
            return true;
        };
        let mut lexer = Lexer::new(rest.as_bytes());
        let name = lexer.token();
        let value = lexer.token();
        name.is_err()
            || !matches!(value, Ok(Some(it)) if matches!(it.kind, TokenKind::Word | TokenKind::Punctuation))
    }

    fn copy(&mut self, it: &CopyStmt) {
        let server_file = it.is_program || !it.filename.is_empty();
        self.inner_query(&it.query, None, LevelRole::Root);
        if let Some(relation) = &it.relation {
            let mut level = Level::new(LevelRole::Root, None);
            level.relations.push(table_relation(relation));
            self.statement.levels.push(level);
        }
        if it.is_from && !server_file {
            self.statement.copy = Some(copy_from(it));
        }
        let utility =
            if it.is_from { Utility::CopyIn { server_file } } else { Utility::CopyOut { server_file } };
        self.is(utility);
    }

    fn create_table_as(&mut self, it: &CreateTableAsStmt) {
        match it.query.as_ref().and_then(|it| it.node.as_ref()) {
            Some(NodeEnum::ExecuteStmt(_)) => return self.is(Utility::Session("EXECUTE")),
            _ => self.inner_query(&it.query, None, LevelRole::Root),
        };
        if let Some(into) = &it.into {
            self.create_as(into);
        }
    }

    fn create_as(&mut self, into: &IntoClause) {
        let dropped = into.on_commit() == OnCommitAction::OncommitDrop;
        let temporary = into.rel.as_ref().is_some_and(is_temporary) && !dropped;
        self.statement.schema_change = if temporary { SchemaChange::None } else { SchemaChange::Any };
        self.is(if temporary { Utility::Session(TEMPORARY) } else { Utility::CreateAs });
    }

    fn declare(&mut self, it: &DeclareCursorStmt) {
        self.inner_query(&it.query, None, LevelRole::Root);
        let holds = it.options & CURSOR_OPT_HOLD != 0;
        let option = |bit: i32| it.options & bit != 0;
        let (scroll, binary) = (option(CURSOR_OPT_SCROLL), option(CURSOR_OPT_BINARY));
        let declare = CursorStatement::Declare { name: it.portalname.clone(), scroll, binary };
        self.is(if holds { Utility::Session("WITH HOLD cursor") } else { Utility::Cursor(declare) });
    }
}

fn fetch(it: &FetchStmt) -> CursorStatement {
    let rows = match it.direction() {
        FetchDirection::FetchForward if it.how_many == FETCH_ALL => FetchRows::Next(None),
        FetchDirection::FetchForward => match u64::try_from(it.how_many) {
            Ok(count @ 1..) => FetchRows::Next(Some(count)),
            // None is the row that was fetched last.
            _ => FetchRows::Elsewhere,
        },
        _ => FetchRows::Elsewhere,
    };
    CursorStatement::Fetch { name: it.portalname.clone(), moves: it.ismove, rows }
}

fn copy_from(it: &CopyStmt) -> CopyFrom {
    let name = |node: &Node| match &node.node {
        Some(NodeEnum::String(it)) => Some(it.sval.clone()),
        _ => None,
    };
    let columns = (!it.attlist.is_empty()).then(|| it.attlist.iter().filter_map(name).collect());
    let form = if it.where_clause.is_some() { Err("WHERE") } else { copy_form(&it.options) };
    CopyFrom { columns, form }
}

fn copy_form(options: &[Node]) -> Result<CopyForm, &'static str> {
    const KNOWN: [&str; 9] =
        ["format", "delimiter", "null", "default", "quote", "escape", "header", "freeze", "encoding"];
    for it in options {
        let Some(NodeEnum::DefElem(it)) = &it.node else { return Err("an option of this form") };
        match &it.defname[..] {
            known if KNOWN.contains(&known) => {}
            "force_null" | "force_not_null" => return Err("FORCE_NULL or FORCE_NOT_NULL"),
            "on_error" => return Err("ON_ERROR"),
            _ => return Err("an option that Keyway does not read"),
        }
    }
    if exact_text(options, "encoding")?
        .is_some_and(|it| !matches!(&it.to_ascii_lowercase()[..], "utf8" | "utf-8"))
    {
        return Err("ENCODING other than UTF8");
    }
    let format = match exact_text(options, "format")?.as_deref() {
        None | Some("text") => CopyFormat::Text,
        Some("csv") => CopyFormat::Csv,
        Some("binary") => CopyFormat::Binary,
        Some(_) => return Err("a format that Keyway does not read"),
    };
    let csv = format == CopyFormat::Csv;
    let byte = |name: &str, default: u8| match exact_text(options, name)?.as_deref().map(str::as_bytes) {
        None => Ok(default),
        Some([one]) => Ok(*one),
        Some(_) => Err("a DELIMITER, QUOTE or ESCAPE that is not one byte"),
    };
    let quote = byte("quote", b'"')?;
    let header = match option(options, "header") {
        None => options.iter().any(
            |it| matches!(&it.node, Some(NodeEnum::DefElem(it)) if it.defname == "header" && it.arg.is_none()),
        ),
        Some(value) => match word(value).as_deref() {
            Some("true" | "on" | "match") => true,
            Some("false" | "off") => false,
            _ => match option_flag(options, "header") {
                Some(header) => header,
                None => return Err("a HEADER that is neither true, false nor match"),
            },
        },
    };
    Ok(CopyForm {
        format,
        delimiter: byte("delimiter", if csv { b',' } else { b'\t' })?,
        null: exact_text(options, "null")?.unwrap_or_else(|| if csv { "" } else { "\\N" }.to_owned()),
        default: exact_text(options, "default")?,
        quote,
        escape: byte("escape", quote)?,
        header,
    })
}

/// An option's value as it is written.
fn exact_text(options: &[Node], name: &str) -> Result<Option<String>, &'static str> {
    match option(options, name).map(|it| &it.node) {
        None => Ok(None),
        Some(Some(NodeEnum::String(it))) => Ok(Some(it.sval.clone())),
        Some(_) => Err("an option of this form"),
    }
}

/// The INTO of a SELECT; in a set operation it stands in the leftmost arm.
fn into(stmt: &pg_query::protobuf::SelectStmt) -> Option<&IntoClause> {
    match (&stmt.into_clause, &stmt.larg) {
        (Some(into), _) => Some(into),
        (None, Some(left)) => self::into(left),
        (None, None) => None,
    }
}

fn is_temporary(relation: &RangeVar) -> bool {
    relation.relpersistence == "t" || relation.schemaname == "pg_temp"
}

fn transaction(it: &TransactionStmt) -> Utility {
    match it.kind() {
        TransactionStmtKind::TransStmtBegin | TransactionStmtKind::TransStmtStart => {
            // A standby refuses SERIALIZABLE, so such a transaction is none for a replica.
            let isolation = isolation(&it.options);
            let read_only = option_flag(&it.options, "transaction_read_only") == Some(true);
            let read_only = read_only && isolation != Some(Isolation::Serializable);
            Utility::Begin { read_only, isolation }
        }
        TransactionStmtKind::TransStmtCommit => Utility::Commit { chain: it.chain },
        TransactionStmtKind::TransStmtRollback => Utility::Rollback { chain: it.chain },
        TransactionStmtKind::TransStmtSavepoint => Utility::Savepoint,
        TransactionStmtKind::TransStmtRelease => Utility::Release,
        TransactionStmtKind::TransStmtRollbackTo => Utility::RollbackTo,
        _ => Utility::TwoPhase,
    }
}

fn set(it: &VariableSetStmt, text: &str, literals: &[Literal]) -> Utility {
    let name = it.name.to_ascii_lowercase();
    let local = it.is_local;
    let transaction =
        matches!(&name[..], "transaction_read_only" | "transaction_isolation" | "transaction_deferrable");
    match it.kind() {
        VariableSetKind::VarResetAll => Utility::Set(SetStatement::ResetAll),
        VariableSetKind::VarSetMulti => match &it.name[..] {
            "TRANSACTION" => {
                let read_only = option_flag(&it.args, "transaction_read_only");
                let isolation = isolation(&it.args);
                Utility::Set(SetStatement::Transaction { read_only, isolation })
            }
            "SESSION CHARACTERISTICS" => {
                Utility::Set(SetStatement::Characteristics { names: defaults(&it.args) })
            }
            _ => Utility::SetSnapshot,
        },
        _ if transaction => Utility::Set(SetStatement::Transaction { read_only: None, isolation: None }),
        VariableSetKind::VarReset => Utility::Set(SetStatement::Reset { name }),
        VariableSetKind::VarSetDefault if !local => Utility::Set(SetStatement::Reset { name }),
        VariableSetKind::VarSetDefault => {
            Utility::Set(SetStatement::Assign { name, local, value: Assigned::Default })
        }
        _ => {
            let value = assigned(&it.args, text, literals);
            Utility::Set(SetStatement::Assign { name, local, value })
        }
    }
}

/// A value is fixed by the fingerprint if it is one word and no literal of the scan starts there.
fn assigned(args: &[Node], text: &str, literals: &[Literal]) -> Assigned {
    let [only] = args else { return Assigned::Literal };
    let Some(NodeEnum::AConst(constant)) = &only.node else { return Assigned::Literal };
    let Some(a_const::Val::Sval(value)) = &constant.val else { return Assigned::Literal };
    let at = usize::try_from(constant.location).unwrap_or(usize::MAX);
    let literal = literals.iter().any(|it| it.start as usize == at) || at >= text.len();
    if literal { Assigned::Literal } else { Assigned::Word(value.sval.to_ascii_lowercase()) }
}

fn defaults(options: &[Node]) -> Vec<&'static str> {
    let known = [
        ("transaction_isolation", "default_transaction_isolation"),
        ("transaction_read_only", "default_transaction_read_only"),
        ("transaction_deferrable", "default_transaction_deferrable"),
    ];
    let named = |name| option(options, name).is_some();
    known.iter().filter(|(name, _)| named(name)).map(|(_, default)| *default).collect()
}

/// The last option of this name, which is the one that counts.
fn option<'n>(options: &'n [Node], name: &str) -> Option<&'n Node> {
    let of_name = |node: &'n Node| match node.node.as_ref()? {
        NodeEnum::DefElem(it) if it.defname == name => it.arg.as_deref(),
        _ => None,
    };
    options.iter().rev().find_map(of_name)
}

fn option_flag(options: &[Node], name: &str) -> Option<bool> {
    match option(options, name)?.node.as_ref()? {
        NodeEnum::AConst(it) => match it.val.as_ref()? {
            a_const::Val::Ival(it) => Some(it.ival != 0),
            _ => None,
        },
        // A zero is left out of the protobuf form.
        NodeEnum::Integer(it) => Some(it.ival != 0),
        _ => None,
    }
}

fn isolation(options: &[Node]) -> Option<Isolation> {
    Isolation::of_name(&option_text(options, "transaction_isolation")?)
}

fn option_text(options: &[Node], name: &str) -> Option<String> {
    word(option(options, name)?)
}

/// A keyword or name that stands as an option's value.
fn word(node: &Node) -> Option<String> {
    if let Some(value) = boolean(node) {
        return Some(value.to_string());
    }
    match node.node.as_ref()? {
        NodeEnum::String(it) => Some(it.sval.to_ascii_lowercase()),
        NodeEnum::AConst(it) => match it.val.as_ref()? {
            a_const::Val::Sval(it) => Some(it.sval.to_ascii_lowercase()),
            _ => None,
        },
        _ => None,
    }
}

/// For DDL and maintenance: whether it makes something that lives as long as the session. `None` is
/// neither.
fn temporary(node: &NodeEnum, text: &str) -> Option<bool> {
    let named = |relation: &Option<RangeVar>| relation.as_ref().is_some_and(is_temporary);
    let temporary = match node {
        NodeEnum::CreateStmt(it) => named(&it.relation) && it.oncommit() != OnCommitAction::OncommitDrop,
        NodeEnum::ViewStmt(it) => named(&it.view),
        NodeEnum::CreateSeqStmt(it) => named(&it.sequence),
        other if is_ddl(other) => false,
        _ => return None,
    };
    // Functions, types and the rest have their schema in lists of names: the name itself will do.
    Some(temporary || names_temporary_schema(text))
}

/// Looks at tokens, as the fingerprint does: what literals and comments say must not matter.
fn names_temporary_schema(text: &str) -> bool {
    let mut lexer = Lexer::new(text.as_bytes());
    while let Ok(Some(token)) = lexer.token() {
        let name = text[token.start..token.end].trim_matches('"');
        let is_name = matches!(token.kind, TokenKind::Word | TokenKind::QuotedName);
        if is_name && name.eq_ignore_ascii_case("pg_temp") {
            return true;
        }
    }
    false
}

/// Of DDL that makes nothing temporary.
fn schema_change(node: &NodeEnum) -> SchemaChange {
    use NodeEnum as N;
    match node {
        N::TruncateStmt(_)
        | N::VacuumStmt(_)
        | N::ClusterStmt(_)
        | N::ReindexStmt(_)
        | N::RefreshMatViewStmt(_)
        | N::CommentStmt(_)
        | N::SecLabelStmt(_)
        | N::GrantStmt(_)
        | N::GrantRoleStmt(_)
        | N::AlterDefaultPrivilegesStmt(_)
        | N::CreateRoleStmt(_)
        | N::AlterRoleStmt(_)
        | N::DropRoleStmt(_)
        | N::AlterSystemStmt(_)
        | N::CreateTableSpaceStmt(_)
        | N::DropTableSpaceStmt(_)
        | N::CreateStatsStmt(_)
        | N::AlterStatsStmt(_) => SchemaChange::None,
        N::DropStmt(_) | N::IndexStmt(_) | N::AlterRoleSetStmt(_) | N::AlterDatabaseSetStmt(_) => {
            SchemaChange::Harmless
        }
        _ => SchemaChange::Any,
    }
}

#[rustfmt::skip]
fn is_ddl(node: &NodeEnum) -> bool {
    use NodeEnum as N;
    matches!(
        node,
        N::CreateSchemaStmt(_) | N::AlterTableStmt(_) | N::ReplicaIdentityStmt(_) | N::AlterCollationStmt(_)
        | N::AlterDomainStmt(_) | N::GrantStmt(_) | N::GrantRoleStmt(_) | N::AlterDefaultPrivilegesStmt(_)
        | N::CreateTableSpaceStmt(_) | N::DropTableSpaceStmt(_) | N::AlterTableSpaceOptionsStmt(_)
        | N::AlterTableMoveAllStmt(_) | N::CreateExtensionStmt(_) | N::AlterExtensionStmt(_)
        | N::CreateFdwStmt(_) | N::AlterFdwStmt(_) | N::CreateForeignServerStmt(_)
        | N::AlterForeignServerStmt(_) | N::CreateForeignTableStmt(_) | N::CreateUserMappingStmt(_)
        | N::AlterUserMappingStmt(_) | N::DropUserMappingStmt(_) | N::ImportForeignSchemaStmt(_)
        | N::CreatePolicyStmt(_) | N::AlterPolicyStmt(_) | N::CreateAmStmt(_) | N::CreateTrigStmt(_)
        | N::CreateEventTrigStmt(_) | N::AlterEventTrigStmt(_) | N::CreatePlangStmt(_) | N::CreateRoleStmt(_)
        | N::AlterRoleStmt(_) | N::AlterRoleSetStmt(_) | N::DropRoleStmt(_) | N::AlterSeqStmt(_)
        | N::DefineStmt(_) | N::CreateDomainStmt(_) | N::CreateOpClassStmt(_) | N::CreateOpFamilyStmt(_)
        | N::AlterOpFamilyStmt(_) | N::DropStmt(_) | N::TruncateStmt(_) | N::CommentStmt(_)
        | N::SecLabelStmt(_) | N::IndexStmt(_) | N::CreateStatsStmt(_) | N::AlterStatsStmt(_)
        | N::CreateFunctionStmt(_) | N::AlterFunctionStmt(_) | N::RenameStmt(_) | N::AlterObjectSchemaStmt(_)
        | N::AlterObjectDependsStmt(_) | N::AlterOwnerStmt(_) | N::AlterOperatorStmt(_) | N::AlterTypeStmt(_)
        | N::RuleStmt(_) | N::CompositeTypeStmt(_) | N::CreateEnumStmt(_) | N::CreateRangeStmt(_)
        | N::AlterEnumStmt(_) | N::CreatedbStmt(_) | N::AlterDatabaseStmt(_)
        | N::AlterDatabaseRefreshCollStmt(_) | N::AlterDatabaseSetStmt(_) | N::DropdbStmt(_)
        | N::AlterSystemStmt(_) | N::ClusterStmt(_) | N::VacuumStmt(_) | N::RefreshMatViewStmt(_)
        | N::ReindexStmt(_) | N::CreateConversionStmt(_) | N::CreateCastStmt(_) | N::CreateTransformStmt(_)
        | N::DropOwnedStmt(_) | N::ReassignOwnedStmt(_) | N::AlterTsdictionaryStmt(_)
        | N::AlterTsconfigurationStmt(_) | N::CreatePublicationStmt(_) | N::AlterPublicationStmt(_)
        | N::CreateSubscriptionStmt(_) | N::AlterSubscriptionStmt(_) | N::DropSubscriptionStmt(_)
    )
}
