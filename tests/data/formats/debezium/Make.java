import io.apicurio.registry.utils.converter.avro.AvroData;
import io.debezium.embedded.Connect;
import io.debezium.engine.*;
import io.debezium.engine.format.*;
import java.io.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.sql.*;
import java.util.*;
import java.util.concurrent.*;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.io.*;
import org.apache.kafka.connect.source.SourceRecord;

/**
 * Writes what Debezium's own PostgreSQL connector makes of a few statements, in Connect's JSON or in Avro: one JSON line a
 * record, with key and value in base64; for Avro in the registry's framing, and one line for each schema.
 */
public class Make {
    static String b64(byte[] b) { return b == null ? "null" : "\"" + Base64.getEncoder().encodeToString(b) + "\""; }
    static byte[] utf8(String s) { return s == null ? null : s.getBytes(StandardCharsets.UTF_8); }

    static final AvroData AVRO = new AvroData(100);
    static final List<Schema> SCHEMAS = new ArrayList<>();

    /** In the framing of a schema registry that numbers schemas as they come. */
    static byte[] avro(org.apache.kafka.connect.data.Schema schema, Object value, List<String> lines) {
        if (value == null) return null;
        try {
            Schema written = AVRO.fromConnectSchema(schema);
            if (!SCHEMAS.contains(written)) {
                SCHEMAS.add(written);
                lines.add("{\"id\": " + SCHEMAS.size() + ", \"schema\": " + b64(utf8(written.toString())) + "}");
            }
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            new DataOutputStream(out).write(new byte[] {0, 0, 0, 0, (byte) (SCHEMAS.indexOf(written) + 1)});
            BinaryEncoder encoder = EncoderFactory.get().directBinaryEncoder(out, null);
            new GenericDatumWriter<Object>(written).write(AVRO.fromConnectData(schema, value), encoder);
            encoder.flush();
            return out.toByteArray();
        } catch (IOException e) {
            throw new RuntimeException(e);
        }
    }

    static String line(String topic, byte[] key, byte[] value) {
        return "{\"topic\": \"" + topic + "\", \"key\": " + b64(key) + ", \"value\": " + b64(value) + "}";
    }

    static DebeziumEngine<?> engine(String kind, Properties p, List<String> lines) {
        if (kind.equals("avro")) {
            return DebeziumEngine.create(ChangeEventFormat.of(Connect.class)).using(p).notifying(e -> {
                SourceRecord r = e.record();
                lines.add(line(r.topic(), null, avro(r.valueSchema(), r.value(), lines)));
            }).build();
        }
        return DebeziumEngine.create(Json.class).using(p).notifying(e -> {
            lines.add(line(e.destination(), utf8(e.key()), utf8(e.value())));
        }).build();
    }

    public static void main(String[] a) throws Exception {
        String port = a[0], out = a[1], kind = a[2], slot = "s_" + kind.replace('-', '_');
        String schemas = String.valueOf(kind.equals("with-schema"));
        String url = "jdbc:postgresql://127.0.0.1:" + port + "/postgres?user=postgres";
        Properties p = new Properties();
        String[][] kv = {
            {"name", "users-cdc"}, {"connector.class", "io.debezium.connector.postgresql.PostgresConnector"},
            {"offset.storage", "org.apache.kafka.connect.storage.MemoryOffsetBackingStore"},
            {"offset.flush.interval.ms", "0"}, {"database.hostname", "127.0.0.1"}, {"database.port", port},
            {"database.user", "postgres"}, {"database.password", "x"}, {"database.dbname", "postgres"},
            {"topic.prefix", "app"}, {"plugin.name", "pgoutput"}, {"slot.name", slot}, {"publication.name", slot},
            {"slot.drop.on.stop", "true"}, {"provide.transaction.metadata", "true"}, {"heartbeat.interval.ms", "1000"},
            {"skipped.operations", "none"}, {"converter.schemas.enable", schemas},
            {"key.converter.schemas.enable", schemas}, {"value.converter.schemas.enable", schemas}};
        for (String[] s : kv) p.setProperty(s[0], s[1]);
        try (Connection c = DriverManager.getConnection(url); Statement s = c.createStatement()) {
            s.execute("drop table if exists users");
            s.execute("create table users (id bigserial primary key, email text not null, plan text, active boolean,"
                + " balance numeric(12,2), weight numeric, born date, wakes time, signed_up timestamptz,"
                + " changed timestamp, precise timestamp(3), tags text[], settings jsonb, token uuid, avatar bytea,"
                + " score double precision, bio text)");
            s.execute("insert into users (email, plan, signed_up) values ('old@example.com', 'pro', '2020-01-02 03:04:05+01')");
        }
        List<String> lines = Collections.synchronizedList(new ArrayList<>());
        DebeziumEngine<?> engine = engine(kind, p, lines);
        ExecutorService x = Executors.newSingleThreadExecutor();
        x.execute(engine);
        long end = System.currentTimeMillis() + 60000;
        while (lines.isEmpty() && System.currentTimeMillis() < end) Thread.sleep(200);
        Thread.sleep(4000);
        try (Connection c = DriverManager.getConnection(url); Statement s = c.createStatement()) {
            s.execute("insert into users (email, plan, active, balance, weight, born, wakes, signed_up, changed, precise, tags,"
                + " settings, token, avatar, score, bio) values ('ada@example.com', 'free', true, 1234.50, -0.00125,"
                + " '1815-12-10', '06:30:00.25', '2026-11-22 08:54:17.123456+01', '2026-11-22 08:54:17.123456',"
                + " '2026-11-22 08:54:17.123', '{a,b}', '{\"theme\": \"dark\"}', '6e8bc430-9c3a-11d9-9669-0800200c9a66',"
                + " '\\x00ff', 0.1, (select string_agg(md5(i::text), '') from generate_series(1, 300) i))");
            s.execute("update users set plan = 'pro' where email = 'ada@example.com'");
            s.execute("update users set changed = 'infinity' where email = 'ada@example.com'");
            s.execute("alter table users replica identity full");
            s.execute("delete from users where email = 'ada@example.com'");
            s.execute("select pg_logical_emit_message(true, 'app', 'hello')");
            s.execute("truncate users");
        }
        Thread.sleep(4000);
        engine.close();
        x.shutdown();
        Files.write(Paths.get(out), lines);
        System.err.println(lines.size() + " records");
        System.exit(0);
    }
}
