/*
 * A consumer in a share group of Apache Kafka, whose members compete for the records of a topic: librdkafka has none.
 *
 *   consume BOOTSTRAP TOPIC GROUP          out: ["ready"]  ["r",QUEUE,OFFSET,BASE64]
 *   retry BOOTSTRAP TOPIC GROUP MESSAGES   out: ["d",NUMBER,MILLISECONDS]: message NUMBER, so long after it was sent
 *
 * The first acknowledges every record; the second sends them too, and releases each odd one at its first delivery. Both
 * end when their standard input does. Run from source: java -cp JARS ShareProbe.java MODE …
 */
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class ShareProbe {
    private static final PrintStream OUT = new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), false);

    public static void main(String[] arguments) {
        // What the client library itself prints must not come between our lines.
        System.setOut(System.err);
        Thread watcher = new Thread(ShareProbe::exitWithInput, "watcher");
        watcher.setDaemon(true);
        watcher.start();
        try {
            run(arguments);
        } catch (Exception error) {
            tell("[\"error\",\"" + String.valueOf(error).split("\n")[0].replaceAll("[^ -~]|[\",\\\\]", " ") + "\"]");
            System.exit(1);
        }
    }

    private static void run(String[] arguments) throws Exception {
        boolean isRetry = arguments[0].equals("retry");
        String topic = arguments[2];
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[1]);
        readFromTheBeginning(properties, arguments[3]);
        properties.put("group.id", arguments[3]);
        properties.put("share.acknowledgement.mode", "explicit");
        properties.put("key.deserializer", ByteArrayDeserializer.class.getName());
        properties.put("value.deserializer", ByteArrayDeserializer.class.getName());
        KafkaShareConsumer<byte[], byte[]> consumer = new KafkaShareConsumer<>(properties);
        consumer.subscribe(List.of(topic));
        // The first poll joins the group.
        consumer.poll(Duration.ofMillis(100)).forEach(consumer::acknowledge);
        tell("[\"ready\"]");
        if (isRetry) {
            send(arguments[1], topic, Integer.parseInt(arguments[4]));
        }
        while (true) {
            StringBuilder lines = new StringBuilder();
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                boolean isReleased = isRetry && retried(record, lines);
                if (!isRetry) {
                    lines.append("[\"r\",").append(record.partition()).append(',').append(record.offset()).append(",\"");
                    lines.append(Base64.getEncoder().encodeToString(record.value())).append("\"]\n");
                }
                consumer.acknowledge(record, isReleased ? AcknowledgeType.RELEASE : AcknowledgeType.ACCEPT);
            }
            if (!lines.isEmpty()) {
                consumer.commitSync();
                lines.setLength(lines.length() - 1);
                tell(lines);
            }
        }
    }

    /** A share group begins at the end of its topics unless it is told otherwise. */
    private static void readFromTheBeginning(Properties properties, String group) throws Exception {
        try (Admin admin = Admin.create(properties)) {
            ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group);
            ConfigEntry entry = new ConfigEntry("share.auto.offset.reset", "earliest");
            admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(entry, AlterConfigOp.OpType.SET))))
                    .all()
                    .get();
        }
    }

    private static void send(String bootstrap, String topic, int messages) throws Exception {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("key.serializer", ByteArraySerializer.class.getName());
        properties.put("value.serializer", ByteArraySerializer.class.getName());
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(properties)) {
            for (int number = 0; number < messages; number++) {
                byte[] value = (number + " " + System.currentTimeMillis()).getBytes(StandardCharsets.US_ASCII);
                producer.send(new ProducerRecord<>(topic, value)).get();
            }
        }
    }

    /** Tells the delivery, and whether the record is to be given back. */
    private static boolean retried(ConsumerRecord<byte[], byte[]> record, StringBuilder lines) {
        String[] words = new String(record.value(), StandardCharsets.US_ASCII).split(" ");
        long age = System.currentTimeMillis() - Long.parseLong(words[1]);
        lines.append("[\"d\",").append(words[0]).append(',').append(age).append("]\n");
        return Integer.parseInt(words[0]) % 2 == 1 && record.deliveryCount().orElse((short) 1) == 1;
    }

    private static synchronized void tell(CharSequence line) {
        OUT.append(line).append('\n').flush();
    }

    private static void exitWithInput() {
        try {
            while (System.in.read() >= 0) {
                // Nothing is said to it.
            }
        } catch (IOException error) {
            System.err.println(error);
        }
        System.exit(0);
    }
}
