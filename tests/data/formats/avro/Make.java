// Writes java.json: records as Apache Avro's own Java library encodes them. See README.md beside it.

import java.io.ByteArrayOutputStream;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.avro.Conversions;
import org.apache.avro.LogicalTypes;
import org.apache.avro.Schema;
import org.apache.avro.SchemaBuilder;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.EncoderFactory;

public class Make {
    static final Map<String, Object> CASES = new LinkedHashMap<>();

    static void write(String name, Schema schema, Object value, boolean blocking) throws Exception {
        GenericData data = new GenericData();
        data.addLogicalTypeConversion(new Conversions.DecimalConversion());
        data.addLogicalTypeConversion(new Conversions.BigDecimalConversion());
        data.addLogicalTypeConversion(new Conversions.UUIDConversion());
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        EncoderFactory factory = new EncoderFactory();
        BinaryEncoder encoder = blocking
            ? factory.configureBlockSize(64).blockingBinaryEncoder(out, null)
            : factory.binaryEncoder(out, null);
        new GenericDatumWriter<Object>(schema, data).write(value, encoder);
        encoder.flush();
        Map<String, Object> made = new LinkedHashMap<>();
        made.put("schema", schema.toString());
        made.put("value", Base64.getEncoder().encodeToString(out.toByteArray()));
        CASES.put(name, made);
    }

    static Schema logical(org.apache.avro.LogicalType type, Schema.Type base) {
        return type.addToSchema(Schema.create(base));
    }

    static Schema fixed(String name, int size) {
        return Schema.createFixed(name, null, "com.acme", size);
    }

    public static void main(String[] args) throws Exception {
        Schema duration = LogicalTypes.duration().addToSchema(fixed("Duration", 12));
        Schema uuid = LogicalTypes.uuid().addToSchema(fixed("Uuid", 16));
        Schema debt = LogicalTypes.decimal(10, 3).addToSchema(fixed("Debt", 8));
        Schema all = SchemaBuilder.record("AllTypes").namespace("com.acme").fields()
            .name("at").type(logical(LogicalTypes.timestampMillis(), Schema.Type.LONG)).noDefault()
            .name("micros").type(logical(LogicalTypes.timestampMicros(), Schema.Type.LONG)).noDefault()
            .name("nanos").type(logical(LogicalTypes.timestampNanos(), Schema.Type.LONG)).noDefault()
            .name("there").type(logical(LogicalTypes.localTimestampMicros(), Schema.Type.LONG)).noDefault()
            .name("never").type(logical(LogicalTypes.timestampMillis(), Schema.Type.LONG)).noDefault()
            .name("born").type(logical(LogicalTypes.date(), Schema.Type.INT)).noDefault()
            .name("wakes").type(logical(LogicalTypes.timeMillis(), Schema.Type.INT)).noDefault()
            .name("sleeps").type(logical(LogicalTypes.timeMicros(), Schema.Type.LONG)).noDefault()
            .name("price").type(logical(LogicalTypes.decimal(30, 4), Schema.Type.BYTES)).noDefault()
            .name("debt").type(debt).noDefault()
            .name("exact").type(logical(LogicalTypes.bigDecimal(), Schema.Type.BYTES)).noDefault()
            .name("trial").type(duration).noDefault()
            .name("user").type(uuid).noDefault()
            .name("ratio").type().floatType().noDefault()
            .name("raw").type().bytesType().noDefault()
            .endRecord();
        java.time.Instant noon = java.time.Instant.parse("2026-11-22T12:30:00.123456789Z");
        long second = noon.getEpochSecond();
        GenericRecord record = new GenericData.Record(all);
        record.put("at", noon.toEpochMilli());
        record.put("micros", second * 1_000_000 + 123_456);
        record.put("nanos", second * 1_000_000_000 + 123_456_789);
        record.put("there", second * 1_000_000);
        record.put("never", Long.MAX_VALUE);
        record.put("born", (int) java.time.LocalDate.parse("1999-12-31").toEpochDay());
        record.put("wakes", 23_400_005);
        record.put("sleeps", 79_200_000_001L);
        record.put("price", new BigDecimal("12345678901234567890.1234"));
        record.put("debt", new BigDecimal("-0.005"));
        record.put("exact", new BigDecimal("-12.3400"));
        record.put("trial", new GenericData.Fixed(duration, new byte[] {1, 0, 0, 0, 14, 0, 0, 0, (byte) 0xdc, 5, 0, 0}));
        record.put("user", java.util.UUID.fromString("12345678-1234-5678-1234-567812345678"));
        record.put("ratio", 0.25f);
        record.put("raw", ByteBuffer.wrap(new byte[] {0, 1, (byte) 0xff}));
        write("all types", all, record, false);

        Schema tree = new Schema.Parser().parse("{\"type\":\"record\",\"name\":\"Team\",\"namespace\":\"com.acme\",\"fields\":["
            + "{\"name\":\"name\",\"type\":\"string\"},{\"name\":\"teams\",\"type\":{\"type\":\"array\",\"items\":\"Team\"}},"
            + "{\"name\":\"owners\",\"type\":{\"type\":\"map\",\"values\":[\"null\",\"Team\"]},\"default\":{}}]}");
        GenericRecord leaf = team(tree, "leaf", List.of(), Map.of());
        Map<String, Object> owners = new LinkedHashMap<>();
        owners.put("nobody", null);
        owners.put("somebody", leaf);
        GenericRecord top = team(tree, "top", List.of(leaf, team(tree, "middle", List.of(leaf), Map.of())), owners);
        write("a recursive type", tree, top, false);
        // Collections in blocks that tell their size in bytes, as a negative count.
        List<GenericRecord> many = new ArrayList<>();
        for (int number = 0; number < 20; number++) {
            many.add(team(tree, "team " + number, List.of(), Map.of()));
        }
        write("blocks that tell their size", tree, team(tree, "large", many, Map.of()), true);

        new ObjectMapper().writerWithDefaultPrettyPrinter().writeValue(Path.of(args[0]).toFile(), CASES);
    }

    static GenericRecord team(Schema schema, String name, List<GenericRecord> teams, Map<String, Object> owners) {
        GenericRecord made = new GenericData.Record(schema);
        made.put("name", name);
        made.put("teams", teams);
        made.put("owners", owners);
        return made;
    }
}
