//! What Keyway itself answers to the messages of a group.

use super::deallocate;
use super::extended::{Group, Op};
use crate::wire;

/// The answers of a group that no server has seen.
pub(super) fn put_made(
    group: &Group<'_>,
    notices: &[u8],
    tag: &str,
    columns: &[wire::Column],
    out: &mut Vec<u8>,
) {
    let describe = |out: &mut Vec<u8>| match columns {
        [] => out.extend_from_slice(wire::NO_DATA),
        columns => wire::describe_columns(out, columns, |_| false),
    };
    for op in &group.ops {
        match op {
            Op::Parse { .. } => out.extend_from_slice(wire::PARSE_COMPLETE),
            Op::Bind { .. } => out.extend_from_slice(wire::BIND_COMPLETE),
            Op::DescribeStatement { .. } => {
                wire::parameter_description(out, &[]);
                describe(out);
            }
            Op::DescribePortal { .. } => describe(out),
            Op::Execute { .. } => {
                out.extend_from_slice(notices);
                wire::command_complete(out, tag);
            }
            Op::Deallocate { plan, .. } => out.extend_from_slice(deallocate::completion(&plan.kind)),
            Op::CloseStatement { .. } | Op::ClosePortal { .. } => {
                out.extend_from_slice(wire::CLOSE_COMPLETE);
            }
            Op::Sync { .. } | Op::Flush { .. } => {}
        }
    }
}
