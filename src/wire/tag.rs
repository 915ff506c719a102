//! The first byte of a message. A byte means different things in the two directions, hence two
//! types (manual section "Message Formats").

/// Client to server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontendTag(pub u8);

impl FrontendTag {
    pub const BIND: FrontendTag = FrontendTag(b'B');
    pub const CLOSE: FrontendTag = FrontendTag(b'C');
    pub const COPY_DATA: FrontendTag = FrontendTag(b'd');
    pub const COPY_DONE: FrontendTag = FrontendTag(b'c');
    pub const COPY_FAIL: FrontendTag = FrontendTag(b'f');
    pub const DESCRIBE: FrontendTag = FrontendTag(b'D');
    pub const EXECUTE: FrontendTag = FrontendTag(b'E');
    pub const FLUSH: FrontendTag = FrontendTag(b'H');
    pub const FUNCTION_CALL: FrontendTag = FrontendTag(b'F');
    pub const PARSE: FrontendTag = FrontendTag(b'P');
    /// Password, SASLInitialResponse and SASLResponse, told apart by what was asked.
    pub const PASSWORD: FrontendTag = FrontendTag(b'p');
    pub const QUERY: FrontendTag = FrontendTag(b'Q');
    pub const SYNC: FrontendTag = FrontendTag(b'S');
    pub const TERMINATE: FrontendTag = FrontendTag(b'X');

    /// What PostgreSQL accepts after login; anything else ends the connection (08P01), because a
    /// length read behind an unknown tag cannot be trusted (`SocketBackend` in postgres.c).
    pub fn is_known(self) -> bool {
        matches!(
            self.0,
            b'B' | b'C' | b'd' | b'c' | b'f' | b'D' | b'E' | b'H' | b'F' | b'P' | b'Q' | b'S' | b'X'
        )
    }

    /// Whether PostgreSQL takes a message for one that cannot be, as its body is longer than such a one's ever is
    /// (`PQ_SMALL_MESSAGE_LIMIT`; `SocketBackend` in postgres.c, `CopyGetData` in copyfromparse.c).
    pub fn is_too_long(self, total_bytes: usize) -> bool {
        const SMALL_BYTES_MAX: usize = 10_000;
        let is_small = matches!(self.0, b'C' | b'D' | b'E' | b'H' | b'S' | b'X' | b'c' | b'f' | b'p');
        is_small && total_bytes > SMALL_BYTES_MAX
    }
}

/// Server to client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendTag(pub u8);

impl BackendTag {
    pub const AUTHENTICATION: BackendTag = BackendTag(b'R');
    pub const BACKEND_KEY_DATA: BackendTag = BackendTag(b'K');
    pub const BIND_COMPLETE: BackendTag = BackendTag(b'2');
    pub const CLOSE_COMPLETE: BackendTag = BackendTag(b'3');
    pub const COMMAND_COMPLETE: BackendTag = BackendTag(b'C');
    pub const COPY_BOTH: BackendTag = BackendTag(b'W');
    pub const COPY_DATA: BackendTag = BackendTag(b'd');
    pub const COPY_DONE: BackendTag = BackendTag(b'c');
    pub const COPY_IN: BackendTag = BackendTag(b'G');
    pub const COPY_OUT: BackendTag = BackendTag(b'H');
    pub const DATA_ROW: BackendTag = BackendTag(b'D');
    pub const EMPTY_QUERY: BackendTag = BackendTag(b'I');
    pub const ERROR: BackendTag = BackendTag(b'E');
    pub const FUNCTION_RESULT: BackendTag = BackendTag(b'V');
    pub const NEGOTIATE_VERSION: BackendTag = BackendTag(b'v');
    pub const NO_DATA: BackendTag = BackendTag(b'n');
    pub const NOTICE: BackendTag = BackendTag(b'N');
    pub const NOTIFICATION: BackendTag = BackendTag(b'A');
    pub const PARAMETER_DESCRIPTION: BackendTag = BackendTag(b't');
    pub const PARAMETER_STATUS: BackendTag = BackendTag(b'S');
    pub const PARSE_COMPLETE: BackendTag = BackendTag(b'1');
    pub const PORTAL_SUSPENDED: BackendTag = BackendTag(b's');
    pub const READY_FOR_QUERY: BackendTag = BackendTag(b'Z');
    pub const ROW_DESCRIPTION: BackendTag = BackendTag(b'T');
}
