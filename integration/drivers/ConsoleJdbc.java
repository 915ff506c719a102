// The console by PostgreSQL's JDBC driver: java -cp postgresql.jar ConsoleJdbc.java URL

import java.net.URI;
import java.sql.*;

public class ConsoleJdbc {
    static void that(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    public static void main(String[] arguments) throws Exception {
        URI url = new URI(arguments[0]);
        String[] user = url.getUserInfo().split(":");
        String place = "jdbc:postgresql://" + url.getHost() + ":" + url.getPort() + url.getPath();
        for (String mode : new String[] {"simple", "extended", "extendedForPrepared", "extendedCacheEverything"}) {
            String options = "?preferQueryMode=" + mode + "&user=" + user[0] + "&password=" + user[1];
            try (Connection connection = DriverManager.getConnection(place + options)) {
                // From the fifth time on it is named, and its numbers are binary.
                try (PreparedStatement statement = connection.prepareStatement("SHOW DATABASES")) {
                    for (int turn = 0; turn < 8; turn++) {
                        try (ResultSet rows = statement.executeQuery()) {
                            that(rows.next(), mode + ": a row");
                            that(rows.getString("name").equals("plain"), mode + ": name");
                            that(rows.getLong("pool_size") == 6, mode + ": pool_size");
                            that(rows.getString("force_user") == null && !rows.next(), mode + ": one row");
                        }
                    }
                }
                try (Statement statement = connection.createStatement()) {
                    statement.execute("PAUSE");
                    statement.execute("RESUME");
                    try {
                        statement.executeQuery("SHOW NOTHING");
                        throw new AssertionError(mode + ": no error");
                    } catch (SQLException error) {
                        that(error.getSQLState().equals("42601"), mode + ": " + error);
                    }
                }
                connection.setAutoCommit(false);
                try (Statement statement = connection.createStatement()) {
                    statement.setFetchSize(3);
                    int count = 0;
                    try (ResultSet rows = statement.executeQuery("SHOW LISTS")) {
                        while (rows.next()) {
                            count++;
                        }
                    }
                    that(count > 10, mode + ": rows in parts: " + count);
                }
                connection.commit();
            }
        }
        System.out.println("done");
    }
}
