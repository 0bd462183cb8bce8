/*
 * Tries one of the features that Apache RocketMQ has beside plain queues, through RocketMQ's own client library, and tells
 * each delivery as a line: ["d",NUMBER,MILLISECONDS] is message NUMBER so long after it was sent; ["ready"] stands before
 * the first. It judges nothing, and goes on until its standard input ends.
 * Run from source: java -cp JARS FeatureProbe.java NAMESRV FEATURE TOPIC MESSAGES
 */
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.trace.TraceBean;
import org.apache.rocketmq.client.trace.TraceContext;
import org.apache.rocketmq.client.trace.TraceDataEncoder;
import org.apache.rocketmq.client.trace.TraceType;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

public final class FeatureProbe {
    private static final String BROKER = "broker-a";
    private static final PrintStream OUT = new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), false);

    private final String nameServer;
    private final String topic;
    private final int messages;
    private final DefaultMQAdminExt admin = new DefaultMQAdminExt(10_000);

    public static void main(String[] arguments) throws Exception {
        // What the client library itself prints must not come between our lines.
        System.setOut(System.err);
        // By default it looks every 20 s for what it is to read, and a message that comes back has a topic of its own.
        System.setProperty("rocketmq.client.rebalance.waitInterval", "1000");
        try {
            new FeatureProbe(arguments).run(arguments[1]);
        } catch (Exception error) {
            tell("[\"error\",\"" + String.valueOf(error).split("\n")[0].replaceAll("[^ -~]|[\",\\\\]", " ") + "\"]");
            System.exit(1);
        }
        while (System.in.read() >= 0) {
            // Nothing is said to it.
        }
        System.exit(0);
    }

    private FeatureProbe(String[] arguments) throws Exception {
        nameServer = arguments[0];
        topic = arguments[2];
        messages = Integer.parseInt(arguments[3]);
        admin.setNamesrvAddr(nameServer);
        admin.start();
        create(topic);
    }

    private void run(String feature) throws Exception {
        switch (feature) {
            case "retry" -> {
                consume("*", false, (message, tries) -> isOdd(message) && tries == 0);
                send(producer(), (message, number) -> { });
            }
            case "timed" -> {
                consume("*", false, (message, tries) -> false);
                send(producer(), (message, number) -> message.setDelayTimeMs(DELAY_MS));
            }
            case "query" -> {
                DefaultMQProducer producer = producer();
                send(producer, (message, number) -> message.setKeys(number % 2 == 1 ? "wanted" : "other"));
                query(producer);
            }
            case "transaction" -> {
                consume("*", false, (message, tries) -> false);
                transact(false);
            }
            case "check-back" -> {
                consume("*", false, (message, tries) -> false);
                transact(true);
            }
            case "trace" -> trace();
            case "filter" -> {
                consume("wanted", false, (message, tries) -> false);
                send(producer(), (message, number) -> message.setTags(number % 2 == 1 ? "wanted" : "other"));
            }
            default -> throw new IllegalArgumentException(feature);
        }
    }

    private interface Marks {
        void on(Message message, int number) throws Exception;
    }

    private interface Refuses {
        boolean refuses(MessageExt message, int tries);
    }

    private static synchronized void tell(String line) {
        OUT.append(line).append('\n').flush();
    }

    private static void delivered(Message message) {
        String[] words = new String(message.getBody(), StandardCharsets.US_ASCII).split(" ");
        tell("[\"d\"," + words[0] + "," + (System.currentTimeMillis() - Long.parseLong(words[1])) + "]");
    }

    private static boolean isOdd(Message message) {
        return Integer.parseInt(new String(message.getBody(), StandardCharsets.US_ASCII).split(" ")[0]) % 2 == 1;
    }

    private void create(String name) throws Exception {
        String broker = admin.examineBrokerClusterInfo().getBrokerAddrTable().get(BROKER).selectBrokerAddr();
        admin.createAndUpdateTopicConfig(broker, new TopicConfig(name, 1, 1));
        for (int attempt = 0; ; attempt++) {
            try {
                if (!admin.examineTopicRouteInfo(name).getQueueDatas().isEmpty()) {
                    return;
                }
            } catch (MQClientException error) {
                if (attempt == 200) {
                    throw error;
                }
            }
            Thread.sleep(50);
        }
    }

    private DefaultMQProducer producer() throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer(topic + "-producer");
        producer.setNamesrvAddr(nameServer);
        producer.start();
        return producer;
    }

    private Message message(int number) {
        return new Message(topic, (number + " " + System.currentTimeMillis()).getBytes(StandardCharsets.US_ASCII));
    }

    private void send(DefaultMQProducer producer, Marks marks) throws Exception {
        tell("[\"ready\"]");
        for (int number = 0; number < messages; number++) {
            Message message = message(number);
            marks.on(message, number);
            producer.send(message);
        }
    }

    /** Starts a consumer, and waits until it has been given the topic's queue. */
    private void consume(String tags, boolean isTraced, Refuses refuses) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(topic + "-consumer", isTraced, topic + "-trace");
        consumer.setNamesrvAddr(nameServer);
        consumer.setPollNameServerInterval(1_000);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(topic, tags);
        consumer.registerMessageListener((MessageListenerConcurrently) (received, context) -> {
            // One at a time is the library's default.
            MessageExt message = received.get(0);
            if (!isTraced) {
                delivered(message);
            }
            context.setDelayLevelWhenNextConsume(1);
            boolean isRefused = refuses.refuses(message, message.getReconsumeTimes());
            return isRefused ? ConsumeConcurrentlyStatus.RECONSUME_LATER : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        for (int attempt = 0; attempt < 600; attempt++) {
            boolean isGiven = consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet()
                    .stream().anyMatch(queue -> queue.getTopic().equals(topic));
            if (isGiven) {
                return;
            }
            Thread.sleep(50);
        }
        throw new IllegalStateException("the consumer was given no queue");
    }

    /** Asks the broker for one key until it finds as many as were sent, since it builds its index behind the log. */
    private void query(DefaultMQProducer producer) throws Exception {
        List<MessageExt> found = List.of();
        for (int attempt = 0; attempt < 100 && found.size() < messages / 2; attempt++) {
            try {
                found = producer.queryMessage(topic, "wanted", 64, 0, Long.MAX_VALUE).getMessageList();
            } catch (MQClientException none) {
                found = List.of();
            }
            Thread.sleep(100);
        }
        found.forEach(FeatureProbe::delivered);
    }

    /** Even messages are committed and odd ones rolled back: at once, or only when the broker asks. */
    private void transact(boolean isLeftOpen) throws Exception {
        TransactionMQProducer producer = new TransactionMQProducer(topic + "-producer");
        producer.setNamesrvAddr(nameServer);
        producer.setTransactionListener(new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
                return isLeftOpen ? LocalTransactionState.UNKNOW : decided(message);
            }

            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt message) {
                return decided(message);
            }

            private LocalTransactionState decided(Message message) {
                return isOdd(message) ? LocalTransactionState.ROLLBACK_MESSAGE : LocalTransactionState.COMMIT_MESSAGE;
            }
        });
        producer.start();
        tell("[\"ready\"]");
        for (int number = 0; number < messages; number++) {
            producer.sendMessageInTransaction(message(number), null);
        }
    }

    /** What the trace says of each message: that it was sent, and that it was consumed. */
    private void trace() throws Exception {
        create(topic + "-trace");
        DefaultMQPushConsumer reader = new DefaultMQPushConsumer(topic + "-reader");
        reader.setNamesrvAddr(nameServer);
        reader.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        reader.subscribe(topic + "-trace", "*");
        reader.registerMessageListener((MessageListenerConcurrently) (received, context) -> {
            String text = new String(received.get(0).getBody(), StandardCharsets.UTF_8);
            for (TraceContext traced : TraceDataEncoder.decoderFromTraceDataString(text)) {
                if (traced.getTraceType() == TraceType.Pub || traced.getTraceType() == TraceType.SubAfter) {
                    for (TraceBean bean : traced.getTraceBeans()) {
                        tell("[\"d\"," + bean.getKeys() + ",0]");
                    }
                }
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        reader.start();
        consume("*", true, (message, tries) -> false);
        DefaultMQProducer producer = new DefaultMQProducer(topic + "-producer", true, topic + "-trace");
        producer.setNamesrvAddr(nameServer);
        producer.start();
        send(producer, (message, number) -> message.setKeys(String.valueOf(number)));
    }

    private static final long DELAY_MS = 3_000;
}
