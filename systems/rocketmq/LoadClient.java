/*
 * RocketMQ's own Java client as a child process of mqassay, driven by JSON lines (arrays without spaces).
 *
 *   admin   NAMESRV              in:  ["create",TOPIC,QUEUES]  ["delete",TOPIC]  ["ends",TOPIC,QUEUES]
 *                                out: ["ok"]  ["ends",END...]  ["error",TEXT]
 *   produce NAMESRV              in:  ["open",TOPIC,RECORDS,BYTES,LINGER_MS]  ["s",QUEUE,SEQUENCE,BASE64]  ["f"]
 *                                out: ["ready"]  ["a",QUEUE,SEQUENCE,COUNT,OFFSET]  ["e",QUEUE,SEQUENCE,COUNT,TEXT]  ["f"]
 *   consume NAMESRV              in:  ["open",TOPIC,QUEUES]  ["close"]
 *                                out: ["ready"]  ["r",QUEUE,OFFSET,BASE64]  ["closed"]
 *
 * Each ends when its standard input does; until then one topic can be opened after the other, by a producer after ["f"], so that
 * the virtual machine is warm. A queue has one batch in flight at a time, because a RocketMQ broker keeps no
 * order among asynchronous sends; what arrives meanwhile becomes the next batch. No retries: an outcome is told as met.
 */
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.Semaphore;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

public final class LoadClient {
    private static final String BROKER = "broker-a";
    private static final int PENDING_RECORDS_MAXIMUM = 50_000;
    private static final PrintStream OUT = new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), false);
    private static final BufferedReader IN =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII), 1 << 20);

    public static void main(String[] arguments) {
        // What the client library itself prints must not come between our lines.
        System.setOut(System.err);
        try {
            switch (arguments[0]) {
                case "admin" -> admin(arguments[1]);
                case "produce" -> new Producer(arguments[1]).run();
                case "consume" -> consume(arguments[1]);
                default -> throw new IllegalArgumentException(arguments[0]);
            }
        } catch (Exception error) {
            // The library's own threads would keep the process alive, and its reader would wait for nothing.
            tell("[\"error\"," + quoted(error) + "]");
            System.exit(1);
        }
        System.exit(0);
    }

    private static synchronized void tell(CharSequence line) {
        OUT.append(line).append('\n').flush();
    }

    private static String quoted(Throwable error) {
        String text = String.valueOf(error.getMessage()).split("\n")[0];
        return '"' + text.replaceAll("[^ -~]|[\"\\\\]", " ") + '"';
    }

    private static String[] fields(String line) {
        return line.substring(1, line.length() - 1).replace("\"", "").split(",");
    }

    private static void admin(String nameServer) throws Exception {
        DefaultMQAdminExt admin = new DefaultMQAdminExt(10_000);
        admin.setNamesrvAddr(nameServer);
        admin.setInstanceName("admin-" + ProcessHandle.current().pid());
        admin.start();
        for (String line = IN.readLine(); line != null; line = IN.readLine()) {
            try {
                tell(answer(admin, fields(line)));
            } catch (Exception error) {
                tell("[\"error\"," + quoted(error) + "]");
            }
        }
    }

    private static String answer(DefaultMQAdminExt admin, String[] words) throws Exception {
        Set<String> brokers = Set.of(admin.examineBrokerClusterInfo().getBrokerAddrTable().get(BROKER).selectBrokerAddr());
        switch (words[0]) {
            case "create" -> {
                int queues = Integer.parseInt(words[2]);
                for (String broker : brokers) {
                    admin.createAndUpdateTopicConfig(broker, new TopicConfig(words[1], queues, queues));
                }
                awaitRoute(admin, words[1], queues);
                return "[\"ok\"]";
            }
            case "delete" -> {
                admin.deleteTopicInBroker(brokers, words[1]);
                admin.deleteTopicInNameServer(Set.of(admin.getNamesrvAddr()), words[1]);
                return "[\"ok\"]";
            }
            default -> {
                StringBuilder ends = new StringBuilder("[\"ends\"");
                for (int queue = 0; queue < Integer.parseInt(words[2]); queue++) {
                    ends.append(',').append(admin.maxOffset(new MessageQueue(words[1], BROKER, queue)));
                }
                return ends.append(']').toString();
            }
        }
    }

    private static void awaitRoute(DefaultMQAdminExt admin, String topic, int queues) throws Exception {
        Exception last = new IllegalStateException("the name server does not list all queues of the topic");
        for (int attempt = 0; attempt < 200; attempt++) {
            try {
                if (admin.examineTopicRouteInfo(topic).getQueueDatas().get(0).getWriteQueueNums() == queues) {
                    return;
                }
            } catch (Exception error) {
                last = error;
            }
            Thread.sleep(50);
        }
        throw last;
    }

    private record Pending(long sequence, Message message, long since) {}

    private static final class Lane {
        final ArrayDeque<Pending> waiting = new ArrayDeque<>();
        boolean isInFlight;
    }

    private static final class Producer {
        private String topic;
        private int batchRecords;
        private int batchBytes;
        private long lingerNanos;
        private Thread ticker = new Thread();
        private final DefaultMQProducer producer = new DefaultMQProducer("mqassay-producer");
        private final Map<Integer, Lane> lanes = new HashMap<>();
        private final Semaphore room = new Semaphore(PENDING_RECORDS_MAXIMUM);

        Producer(String nameServer) throws Exception {
            producer.setNamesrvAddr(nameServer);
            producer.setInstanceName("producer-" + ProcessHandle.current().pid());
            producer.setRetryTimesWhenSendAsyncFailed(0);
            producer.start();
        }

        /** Nothing is in flight. */
        private void open(String[] words) throws Exception {
            ticker.interrupt();
            ticker.join();
            synchronized (lanes) {
                lanes.clear();
                topic = words[1];
                batchRecords = Integer.parseInt(words[2]);
                batchBytes = Integer.parseInt(words[3]);
                lingerNanos = Long.parseLong(words[4]) * 1_000_000;
            }
            producer.fetchPublishMessageQueues(topic);
            if (lingerNanos > 0) {
                ticker = new Thread(this::tick, "linger");
                ticker.setDaemon(true);
                ticker.start();
            }
            tell("[\"ready\"]");
        }

        void run() throws Exception {
            for (String line = IN.readLine(); line != null; line = IN.readLine()) {
                if (line.startsWith("[\"f")) {
                    flush();
                    continue;
                }
                String[] words = fields(line);
                if (words[0].equals("open")) {
                    open(words);
                    continue;
                }
                room.acquire();
                int queue = Integer.parseInt(words[1]);
                byte[] body = Base64.getDecoder().decode(words[3]);
                synchronized (lanes) {
                    Lane lane = lanes.computeIfAbsent(queue, key -> new Lane());
                    lane.waiting.add(new Pending(Long.parseLong(words[2]), new Message(topic, body), System.nanoTime()));
                    launch(queue, lane, false);
                }
            }
        }

        /** Waits until every record has its outcome. */
        private void flush() throws InterruptedException {
            synchronized (lanes) {
                lanes.forEach((queue, lane) -> launch(queue, lane, true));
            }
            while (!room.tryAcquire(PENDING_RECORDS_MAXIMUM, 1, java.util.concurrent.TimeUnit.MILLISECONDS)) {
                synchronized (lanes) {
                    lanes.forEach((queue, lane) -> launch(queue, lane, true));
                }
            }
            room.release(PENDING_RECORDS_MAXIMUM);
            tell("[\"f\"]");
        }

        private void tick() {
            while (!Thread.interrupted()) {
                java.util.concurrent.locks.LockSupport.parkNanos(500_000);
                synchronized (lanes) {
                    lanes.forEach((queue, lane) -> launch(queue, lane, false));
                }
            }
        }

        /** Sends the lane's next batch, if none is in flight and it is full, old enough, or forced. */
        private void launch(int queue, Lane lane, boolean isForced) {
            if (lane.isInFlight || lane.waiting.isEmpty()) {
                return;
            }
            Pending first = lane.waiting.peek();
            int size = first.message().getBody().length;
            boolean isFull = lane.waiting.size() >= batchRecords || (long) lane.waiting.size() * size >= batchBytes;
            if (!isForced && !isFull && System.nanoTime() - first.since() < lingerNanos) {
                return;
            }
            List<Message> batch = new ArrayList<>();
            for (long bytes = 0; !lane.waiting.isEmpty() && batch.size() < batchRecords; ) {
                bytes += size;
                if (!batch.isEmpty() && bytes > batchBytes) {
                    break;
                }
                batch.add(lane.waiting.poll().message());
            }
            lane.isInFlight = true;
            send(queue, lane, first.sequence(), batch);
        }

        private void send(int queue, Lane lane, long sequence, List<Message> batch) {
            SendCallback callback = new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    if (result.getSendStatus() == SendStatus.SEND_OK) {
                        done(queue, lane, "[\"a\"," + queue + "," + sequence + "," + batch.size() + ","
                                + result.getQueueOffset() + "]", batch.size());
                    } else {
                        onException(new IllegalStateException(result.getSendStatus().name()));
                    }
                }

                @Override
                public void onException(Throwable error) {
                    done(queue, lane, "[\"e\"," + queue + "," + sequence + "," + batch.size() + "," + quoted(error) + "]",
                            batch.size());
                }
            };
            try {
                MessageQueue target = new MessageQueue(topic, BROKER, queue);
                if (batch.size() == 1) {
                    producer.send(batch.get(0), target, callback);
                } else {
                    producer.send((Collection<Message>) batch, target, callback);
                }
            } catch (Exception error) {
                callback.onException(error);
            }
        }

        private void done(int queue, Lane lane, String line, int count) {
            tell(line);
            room.release(count);
            synchronized (lanes) {
                lane.isInFlight = false;
                launch(queue, lane, false);
            }
        }
    }

    private static void consume(String nameServer) throws Exception {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer("mqassay-consumer");
        consumer.setNamesrvAddr(nameServer);
        consumer.setInstanceName("consumer-" + ProcessHandle.current().pid());
        consumer.setAutoCommit(false);
        // Not by seek(): it interrupts the threads that pull, and one that is interrupted while it sends closes the channel
        // under all requests of the client.
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.start();
        BlockingQueue<String> commands = new LinkedBlockingQueue<>();
        Thread listener = new Thread(() -> listen(commands), "commands");
        listener.setDaemon(true);
        listener.start();
        StringBuilder lines = new StringBuilder();
        while (true) {
            List<MessageQueue> assigned = queuesOf(fields(commands.take()));
            consumer.assign(assigned);
            tell("[\"ready\"]");
            while (commands.isEmpty()) {
                lines.setLength(0);
                for (MessageExt message : consumer.poll(100)) {
                    lines.append(lines.isEmpty() ? "[\"r\"," : "\n[\"r\",").append(message.getQueueId()).append(',');
                    lines.append(message.getQueueOffset()).append(",\"");
                    lines.append(Base64.getEncoder().encodeToString(message.getBody())).append("\"]");
                }
                if (!lines.isEmpty()) {
                    tell(lines);
                }
            }
            commands.take();
            // There is no way to have nothing assigned; the next topic takes these queues' place.
            consumer.pause(assigned);
            tell("[\"closed\"]");
        }
    }

    private static List<MessageQueue> queuesOf(String[] words) {
        List<MessageQueue> queues = new ArrayList<>();
        for (int queue = 0; queue < Integer.parseInt(words[2]); queue++) {
            queues.add(new MessageQueue(words[1], BROKER, queue));
        }
        return queues;
    }

    private static void listen(BlockingQueue<String> commands) {
        try {
            for (String line = IN.readLine(); line != null; line = IN.readLine()) {
                commands.add(line);
            }
        } catch (IOException error) {
            System.err.println(error);
        }
        System.exit(0);
    }
}
