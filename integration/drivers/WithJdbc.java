// PostgreSQL's JDBC driver with nothing but the connection string: java -cp postgresql.jar WithJdbc.java URL

import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.net.URI;
import java.sql.*;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;
import org.postgresql.PGStatement;
import org.postgresql.copy.CopyManager;

public class WithJdbc {
    // More than a pool has slots.
    static final int CLIENTS = 40;
    // Users of the shop that no other test touches.
    static final long FIRST_USER = 14_000_000;

    static int checks = 0;

    static synchronized void that(String what, boolean holds) {
        checks++;
        if (!holds) {
            throw new AssertionError(what + ": does not hold");
        }
    }

    static void equal(String what, Object got, Object want) {
        that(what + ": got " + got + ", want " + want, Objects.equals(got, want));
    }

    interface Work {
        void run() throws Exception;
    }

    static SQLException fails(String what, String state, Work work) throws Exception {
        try {
            work.run();
        } catch (SQLException error) {
            equal(what + " (" + error.getMessage() + ")", error.getSQLState(), state);
            return error;
        }
        throw new AssertionError(what + ": no error");
    }

    final String url;
    final String user;
    final String password;

    // The driver takes the user and password apart from the rest.
    WithJdbc(String text) {
        URI uri = URI.create(text);
        String[] who = uri.getUserInfo().split(":");
        user = who[0];
        password = who[1];
        url = "jdbc:postgresql://" + uri.getHost() + ":" + uri.getPort() + uri.getPath();
    }

    Connection connect(String... options) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", user);
        properties.setProperty("password", password);
        for (int at = 0; at < options.length; at += 2) {
            properties.setProperty(options[at], options[at + 1]);
        }
        return DriverManager.getConnection(url, properties);
    }

    static Object one(Connection connection, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int at = 0; at < values.length; at++) {
                statement.setObject(at + 1, values[at]);
            }
            try (ResultSet rows = statement.executeQuery()) {
                return rows.next() ? rows.getObject(1) : null;
            }
        }
    }

    static void run(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    // Each is a different way to send the same.
    void speaksInEachMode() throws Exception {
        for (String mode : List.of("extended", "simple", "extendedForPrepared", "extendedCacheEverything")) {
            try (Connection connection = connect("preferQueryMode", mode)) {
                equal(mode, one(connection, "SELECT 1"), 1);
                for (int turn = 0; turn < 12; turn++) {
                    equal(mode, one(connection, "SELECT ?::int + 1", turn), turn + 1);
                }
                try (Statement statement = connection.createStatement()) {
                    that(mode, statement.execute("SELECT 1; SELECT 2"));
                    that(mode, statement.getMoreResults());
                    ResultSet second = statement.getResultSet();
                    that(mode, second.next());
                    equal(mode, second.getInt(1), 2);
                }
            }
        }
        try (Connection connection = connect("ApplicationName", "of jdbc", "options", "-c work_mem=3MB")) {
            equal("application_name", one(connection, "SHOW application_name"), "of jdbc");
            equal("options", one(connection, "SHOW work_mem"), "3MB");
            equal("driver", connection.getMetaData().getDatabaseProductName(), "PostgreSQL");
            that("valid", connection.isValid(5));
        }
    }

    // From the fifth execution on the driver names the statement and asks for binary values.
    void statementsAreNamedAtTheFifthTime() throws Exception {
        List<Connection> connections = new ArrayList<>();
        List<PreparedStatement> statements = new ArrayList<>();
        for (int n = 0; n < 6; n++) {
            connections.add(connect("prepareThreshold", n % 2 == 0 ? "5" : "1"));
            statements.add(connections.get(n).prepareStatement("SELECT ?::int8 * " + (n + 2) + ", ?::text, now()"));
        }
        for (int turn = 0; turn < 20; turn++) {
            for (int n = 0; n < statements.size(); n++) {
                PreparedStatement it = statements.get(n);
                it.setLong(1, turn);
                it.setString(2, "turn " + turn);
                try (ResultSet rows = it.executeQuery()) {
                    that("a row", rows.next());
                    equal("product", rows.getLong(1), (long) turn * (n + 2));
                    equal("text", rows.getString(2), "turn " + turn);
                }
            }
        }
        that("named by now", statements.get(0).unwrap(PGStatement.class).isUseServerPrepare());
        for (Connection it : connections) {
            it.close();
        }
        // More texts than the driver keeps.
        try (Connection connection = connect("preparedStatementCacheQueries", "8", "prepareThreshold", "1")) {
            for (int turn = 0; turn < 3; turn++) {
                for (int n = 0; n < 30; n++) {
                    equal("thrown away", one(connection, "SELECT ?::int + " + n, turn), turn + n);
                }
            }
        }
    }

    void valuesSurvive() throws Exception {
        try (Connection connection = connect("prepareThreshold", "2")) {
            try (PreparedStatement it = connection.prepareStatement(
                    "SELECT ?::int2, ?::int8, ?::float8, ?::numeric, ?::text, ?::bytea, ?::bool, ?::date, ?::timestamptz, ?::int4[], ?::uuid")) {
                UUID uuid = UUID.fromString("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
                Timestamp moment = Timestamp.from(java.time.Instant.parse("2026-02-28T23:59:59.123456Z"));
                byte[] bytes = new byte[256];
                for (int at = 0; at < bytes.length; at++) {
                    bytes[at] = (byte) at;
                }
                for (int turn = 0; turn < 6; turn++) {
                    it.setShort(1, Short.MIN_VALUE);
                    it.setLong(2, Long.MAX_VALUE);
                    it.setDouble(3, 0.1);
                    it.setBigDecimal(4, new BigDecimal("12345678901234567890.000123"));
                    it.setString(5, "it's a \\ \"key\" \n of naïve 鍵");
                    it.setBytes(6, bytes);
                    it.setBoolean(7, true);
                    it.setDate(8, java.sql.Date.valueOf("1970-01-01"));
                    it.setTimestamp(9, moment);
                    it.setArray(10, connection.createArrayOf("int4", new Object[] {1, null, 3}));
                    it.setObject(11, uuid);
                    try (ResultSet rows = it.executeQuery()) {
                        rows.next();
                        equal("int2", rows.getShort(1), Short.MIN_VALUE);
                        equal("int8", rows.getLong(2), Long.MAX_VALUE);
                        equal("float8", rows.getDouble(3), 0.1);
                        equal("numeric", rows.getBigDecimal(4), new BigDecimal("12345678901234567890.000123"));
                        equal("text", rows.getString(5), "it's a \\ \"key\" \n of naïve 鍵");
                        that("bytea", Arrays.equals(rows.getBytes(6), bytes));
                        equal("bool", rows.getBoolean(7), true);
                        equal("date", rows.getDate(8), java.sql.Date.valueOf("1970-01-01"));
                        equal("timestamptz", rows.getTimestamp(9), moment);
                        equal("array", Arrays.toString((Object[]) rows.getArray(10).getArray()), "[1, null, 3]");
                        equal("uuid", rows.getObject(11), uuid);
                    }
                }
            }
            equal("NULL", one(connection, "SELECT ?::text", (Object) null), null);
            String large = "k".repeat(3_000_000);
            equal("3 MB", one(connection, "SELECT ?::text", large).equals(large), true);
        }
    }

    void transactionsEndAsTold() throws Exception {
        try (Connection connection = connect()) {
            run(connection, "CREATE TABLE jdbc_t (id int PRIMARY KEY, name text)");
            connection.setAutoCommit(false);
            run(connection, "INSERT INTO jdbc_t VALUES (1, 'kept')");
            connection.commit();
            run(connection, "INSERT INTO jdbc_t VALUES (2, 'lost')");
            connection.rollback();
            equal("rolled back", one(connection, "SELECT count(*) FROM jdbc_t"), 1L);
            Savepoint savepoint = connection.setSavepoint();
            fails("a double", "23505", () -> run(connection, "INSERT INTO jdbc_t VALUES (1, 'again')"));
            fails("aborted", "25P02", () -> one(connection, "SELECT 1"));
            connection.rollback(savepoint);
            run(connection, "INSERT INTO jdbc_t VALUES (3, 'after')");
            connection.commit();
            equal("savepoint", one(connection, "SELECT count(*) FROM jdbc_t"), 2L);
            connection.commit();
            for (int level : new int[] {Connection.TRANSACTION_REPEATABLE_READ, Connection.TRANSACTION_SERIALIZABLE}) {
                connection.setTransactionIsolation(level);
                equal("isolation", connection.getTransactionIsolation(), level);
                connection.commit();
            }
            connection.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
            connection.setReadOnly(true);
            fails("read only", "25006", () -> run(connection, "DELETE FROM jdbc_t"));
            connection.rollback();
            connection.setReadOnly(false);
            // A failed statement goes back to a savepoint of the driver's own.
            try (Connection saving = connect("autosave", "always")) {
                saving.setAutoCommit(false);
                run(saving, "UPDATE jdbc_t SET name = 'saved' WHERE id = 1");
                fails("division", "22012", () -> one(saving, "SELECT 1/0"));
                equal("goes on", one(saving, "SELECT name FROM jdbc_t WHERE id = 1"), "saved");
                saving.commit();
            }
        }
    }

    void batchesAndKeys() throws Exception {
        for (String rewrite : List.of("false", "true")) {
            try (Connection connection = connect("reWriteBatchedInserts", rewrite)) {
                run(connection, "CREATE TABLE IF NOT EXISTS jdbc_b (id serial PRIMARY KEY, name text NOT NULL)");
                connection.setAutoCommit(false);
                try (PreparedStatement it = connection.prepareStatement("INSERT INTO jdbc_b (name) VALUES (?)")) {
                    for (int n = 0; n < 1000; n++) {
                        it.setString(1, "batch " + n);
                        it.addBatch();
                    }
                    equal("batch", it.executeBatch().length, 1000);
                }
                connection.commit();
                try (PreparedStatement it = connection.prepareStatement(
                        "INSERT INTO jdbc_b (name) VALUES (?)", Statement.RETURN_GENERATED_KEYS)) {
                    it.setString(1, "keyed");
                    it.executeUpdate();
                    try (ResultSet keys = it.getGeneratedKeys()) {
                        that("a key", keys.next() && keys.getInt("id") > 0);
                    }
                }
                connection.rollback();
                try (PreparedStatement it = connection.prepareStatement("INSERT INTO jdbc_b (name) VALUES (?)")) {
                    for (int n = 0; n < 10; n++) {
                        it.setString(1, n == 5 ? null : "failing " + n);
                        it.addBatch();
                    }
                    SQLException error = fails("a batch that fails", "23502", it::executeBatch);
                    that("its kind", error instanceof BatchUpdateException);
                }
                connection.rollback();
                connection.setAutoCommit(true);
                equal("goes on", one(connection, "SELECT count(*) > 0 FROM jdbc_b"), true);
            }
        }
    }

    // With a fetch size the driver reads a portal in parts.
    void rowsComeInParts() throws Exception {
        try (Connection connection = connect()) {
            connection.setAutoCommit(false);
            try (Statement it = connection.createStatement()) {
                it.setFetchSize(70);
                try (ResultSet rows = it.executeQuery("SELECT a FROM generate_series(1, 1000) a")) {
                    int want = 0;
                    while (rows.next()) {
                        want++;
                        if (rows.getInt(1) != want) {
                            throw new AssertionError("row " + want);
                        }
                    }
                    equal("rows", want, 1000);
                }
            }
            connection.commit();
            try (Statement it = connection.createStatement(
                    ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
                ResultSet rows = it.executeQuery("SELECT id, name FROM jdbc_t ORDER BY id");
                that("last", rows.last());
                rows.updateString("name", "through the cursor");
                rows.updateRow();
                rows.close();
            }
            connection.commit();
            equal("updated", one(connection, "SELECT name FROM jdbc_t ORDER BY id DESC LIMIT 1"), "through the cursor");
            connection.commit();
        }
    }

    void copiesInAndOut() throws Exception {
        try (Connection connection = connect()) {
            CopyManager copy = connection.unwrap(PGConnection.class).getCopyAPI();
            StringBuilder rows = new StringBuilder();
            for (int n = 100; n < 5100; n++) {
                rows.append(n).append("\tcopied ").append(n).append('\n');
            }
            equal("in", copy.copyIn("COPY jdbc_t FROM STDIN", new StringReader(rows.toString())), 5000L);
            StringWriter out = new StringWriter();
            long count = copy.copyOut("COPY (SELECT * FROM jdbc_t WHERE id >= 100 ORDER BY id) TO STDOUT", out);
            equal("out", count, 5000L);
            equal("the same", out.toString().equals(rows.toString()), true);
            fails("a double", "23505", () -> copy.copyIn("COPY jdbc_t FROM STDIN", new StringReader("100\tx\n")));
            equal("goes on", one(connection, "SELECT count(*) FROM jdbc_t WHERE id >= 100"), 5000L);
        }
    }

    void catalogAndNotifications() throws Exception {
        try (Connection connection = connect(); Connection other = connect()) {
            Set<String> columns = new TreeSet<>();
            try (ResultSet rows = connection.getMetaData().getColumns(null, "public", "jdbc_t", null)) {
                while (rows.next()) {
                    columns.add(rows.getString("COLUMN_NAME") + " " + rows.getString("TYPE_NAME"));
                }
            }
            equal("columns", columns.toString(), "[id int4, name text]");
            try (ResultSet rows = connection.getMetaData().getPrimaryKeys(null, "public", "jdbc_t")) {
                that("key", rows.next() && rows.getString("COLUMN_NAME").equals("id"));
            }
            run(connection, "LISTEN jdbc_news");
            run(other, "NOTIFY jdbc_news, 'one'");
            var heard = connection.unwrap(PGConnection.class).getNotifications(20_000);
            equal("heard", heard.length, 1);
            equal("payload", heard[0].getParameter(), "one");
            run(connection, "UNLISTEN *");
        }
    }

    void cancelEndsAQuery() throws Exception {
        try (Connection connection = connect()) {
            try (Statement it = connection.createStatement()) {
                it.setQueryTimeout(1);
                fails("a timeout of the driver's", "57014", () -> it.execute("SELECT pg_sleep(60)"));
            }
            equal("goes on", one(connection, "SELECT 1"), 1);
        }
    }

    void usersByKey() throws Exception {
        try (Connection connection = connect("prepareThreshold", "3")) {
            for (long key = 1; key < 100; key++) {
                equal("by key", one(connection, "SELECT name FROM users WHERE user_id = ?", key), "user " + key);
            }
            connection.setAutoCommit(false);
            for (long key = FIRST_USER; key < FIRST_USER + 20; key++) {
                try (PreparedStatement it = connection.prepareStatement(
                        "INSERT INTO users (user_id, name, email, country) VALUES (?, ?, '', 'NL')")) {
                    it.setLong(1, key);
                    it.setString(2, "jdbc " + key);
                    equal("inserted", it.executeUpdate(), 1);
                }
                equal("its own", one(connection, "SELECT name FROM users WHERE user_id = ?", key), "jdbc " + key);
                connection.commit();
            }
            // BEGIN comes with the first statement, which reads of one shard or of all; another one may be written.
            String all = "SELECT count(*) FROM users WHERE user_id >= ? AND user_id < ?";
            for (int turn = 0; turn < 6; turn++) {
                long read = FIRST_USER + turn, write = FIRST_USER + 19 - turn;
                if (turn % 2 == 0) {
                    equal("first", one(connection, "SELECT name FROM users WHERE user_id = ?", read), "jdbc " + read);
                }
                equal("all", one(connection, all, FIRST_USER, FIRST_USER + 20), 20L);
                try (PreparedStatement it = connection.prepareStatement(
                        "UPDATE users SET email = 'jdbc' WHERE user_id = ?")) {
                    it.setLong(1, write);
                    equal("written", it.executeUpdate(), 1);
                }
                equal("all", one(connection, all + " AND email = 'jdbc'", FIRST_USER, FIRST_USER + 20), turn + 1L);
                connection.commit();
            }
            try (PreparedStatement it = connection.prepareStatement("INSERT INTO users VALUES (?, ?, '', 'NL')")) {
                it.setLong(1, FIRST_USER + 20);
                it.setString(2, "jdbc unnamed");
                equal("columns of the catalog", it.executeUpdate(), 1);
            }
            connection.rollback();
            connection.setAutoCommit(true);
            equal("over all shards", one(connection, "SELECT max(user_id) FROM users WHERE user_id < 100"), 99L);
            fails("window", "0A000", () -> one(connection, "SELECT row_number() OVER () FROM users"));
            equal("goes on", one(connection, "SELECT name FROM users WHERE user_id = 7"), "user 7");
        }
    }

    // A portal of several shards, made by the statement that BEGIN comes along with.
    void rowsOfAllShardsComeInParts() throws Exception {
        try (Connection connection = connect("prepareThreshold", "2")) {
            connection.setAutoCommit(false);
            for (int turn = 0; turn < 4; turn++) {
                try (PreparedStatement it = connection.prepareStatement(
                        "SELECT user_id, name FROM users WHERE user_id <= ? ORDER BY user_id")) {
                    it.setFetchSize(30);
                    it.setLong(1, 100);
                    long want = 0;
                    try (ResultSet rows = it.executeQuery()) {
                        while (rows.next()) {
                            want++;
                            equal("id", rows.getLong(1), want);
                            equal("name", rows.getString(2), "user " + want);
                            if (want == 40) {
                                Object other = one(connection, "SELECT name FROM users WHERE user_id = ?", 7L);
                                equal("a statement in between", other, "user 7");
                            }
                        }
                    }
                    equal("rows", want, 100L);
                }
                connection.commit();
            }
            equal("read first", one(connection, "SELECT count(*) FROM users WHERE user_id <= 50"), 50L);
            run(connection, "UPDATE users SET email = 'of jdbc' WHERE user_id = " + FIRST_USER);
            connection.rollback();
        }
    }

    void moreClientsThanServers() throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(CLIENTS);
        List<Future<Integer>> done = new ArrayList<>();
        for (int number = 0; number < CLIENTS; number++) {
            int own = number + 1000;
            done.add(threads.submit(() -> {
                int sum = 0;
                try (Connection connection = connect("prepareThreshold", "2")) {
                    run(connection, "SET lock_timeout = " + own);
                    for (int turn = 0; turn < 10; turn++) {
                        connection.setAutoCommit(turn % 2 == 0);
                        equal("own", one(connection, "SHOW lock_timeout"), own == 1000 ? "1s" : own + "ms");
                        sum += (Integer) one(connection, "SELECT ?::int", turn);
                        if (turn % 2 == 1) {
                            connection.commit();
                        }
                    }
                }
                return sum;
            }));
        }
        for (Future<Integer> it : done) {
            equal("sum", it.get(60, TimeUnit.SECONDS), 45);
        }
        threads.shutdown();
    }

    public static void main(String[] arguments) throws Exception {
        WithJdbc it = new WithJdbc(arguments[0]);
        it.speaksInEachMode();
        it.statementsAreNamedAtTheFifthTime();
        it.valuesSurvive();
        it.cancelEndsAQuery();
        it.moreClientsThanServers();
        if (it.url.endsWith("/shop")) {
            it.usersByKey();
            it.rowsOfAllShardsComeInParts();
        } else {
            it.transactionsEndAsTold();
            it.batchesAndKeys();
            it.rowsComeInParts();
            it.copiesInAndOut();
            it.catalogAndNotifications();
            try (Connection connection = it.connect()) {
                run(connection, "DROP TABLE jdbc_t, jdbc_b");
            }
        }
        System.out.println("checks: " + checks);
    }
}
