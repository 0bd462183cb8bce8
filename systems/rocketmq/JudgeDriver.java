/*
 * A driver of mqassay's judge for Apache RocketMQ, over RocketMQ's own client library: one JSON object a line, as
 * harness/docs/driver.md says. Argument: the name server's address. Only SEND_OK counts as done: a message that is stored
 * and not flushed or replicated as the broker was told to is of unknown outcome. A message's body is the record as it came.
 */
import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

public final class JudgeDriver {
    private static final String BROKER = "broker-a";
    private static final int TIMEOUT_MS = 3_000;
    private static final PrintStream OUT = new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), false);

    private final DefaultMQAdminExt admin = new DefaultMQAdminExt(TIMEOUT_MS);
    private final DefaultMQProducer producer = new DefaultMQProducer("mqassay-judge-producer");
    private final DefaultMQPullConsumer consumer = new DefaultMQPullConsumer("mqassay-judge-consumer");

    public static void main(String[] arguments) throws Exception {
        // What the client library itself prints, hundreds of lines about its own log, must not come between our lines.
        System.setOut(new PrintStream(java.io.OutputStream.nullOutputStream()));
        JudgeDriver driver = new JudgeDriver(arguments[0]);
        // Clients have one request open each, so there are few threads.
        ExecutorService pool = Executors.newCachedThreadPool();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            JSONObject request = JSON.parseObject(line);
            pool.execute(() -> tell(driver.answer(request)));
        }
        System.exit(0);
    }

    private static synchronized void tell(JSONObject answer) {
        OUT.append(answer.toString()).append('\n').flush();
    }

    private JudgeDriver(String nameServer) throws Exception {
        String name = "judge-" + ProcessHandle.current().pid();
        admin.setNamesrvAddr(nameServer);
        admin.setInstanceName(name + "-admin");
        admin.start();
        producer.setNamesrvAddr(nameServer);
        producer.setInstanceName(name);
        producer.setSendMsgTimeout(TIMEOUT_MS);
        producer.setRetryTimesWhenSendFailed(0);
        // Routes change when a broker comes back.
        producer.setPollNameServerInterval(500);
        producer.start();
        consumer.setNamesrvAddr(nameServer);
        consumer.setInstanceName(name);
        consumer.setPollNameServerInterval(500);
        consumer.start();
    }

    private JSONObject answer(JSONObject request) {
        JSONObject answer = new JSONObject();
        answer.put("id", request.getLongValue("id"));
        answer.put("outcome", "done");
        try {
            switch (request.getString("call")) {
                case "create-topic" -> create(request);
                case "produce" -> produce(request, answer);
                case "poll" -> poll(request, answer);
                case "list-offset" -> listOffset(request, answer);
                default -> {
                    answer.put("outcome", "refused");
                    answer.put("why", "this driver does not know the call");
                }
            }
        } catch (Exception error) {
            answer.put("outcome", "unknown");
            answer.put("why", String.valueOf(error.getMessage()).split("\n")[0]);
        }
        return answer;
    }

    private void create(JSONObject request) throws Exception {
        String topic = request.getString("topic");
        int queues = request.getIntValue("queues");
        Exception last = null;
        for (int attempt = 0; attempt < 100; attempt++) {
            try {
                String master = admin.examineBrokerClusterInfo().getBrokerAddrTable().get(BROKER).getBrokerAddrs().get(0L);
                admin.createAndUpdateTopicConfig(master, new TopicConfig(topic, queues, queues));
                if (admin.examineTopicRouteInfo(topic).getQueueDatas().get(0).getWriteQueueNums() == queues) {
                    return;
                }
            } catch (Exception error) {
                last = error;
            }
            Thread.sleep(50);
        }
        throw last == null ? new IllegalStateException("the name server does not list all queues of the topic") : last;
    }

    private void produce(JSONObject request, JSONObject answer) throws Exception {
        answer.put("attempts", 1);
        List<Message> batch = new ArrayList<>();
        for (Object record : request.getJSONArray("records")) {
            batch.add(new Message(request.getString("topic"), record.toString().getBytes(StandardCharsets.UTF_8)));
        }
        MessageQueue queue = queue(request);
        SendResult result = batch.size() == 1 ? producer.send(batch.get(0), queue) : producer.send(batch, queue);
        if (result.getSendStatus() == SendStatus.SEND_OK) {
            answer.put("first_offset", result.getQueueOffset());
        } else {
            answer.put("outcome", "unknown");
            answer.put("why", result.getSendStatus().name());
        }
    }

    private void poll(JSONObject request, JSONObject answer) throws Exception {
        long offset = request.getLongValue("offset");
        PullResult pulled = consumer.pull(queue(request), "*", offset, request.getIntValue("max_records"), TIMEOUT_MS);
        if (pulled.getPullStatus() == PullStatus.OFFSET_ILLEGAL && pulled.getMinOffset() > offset) {
            pulled = consumer.pull(queue(request), "*", pulled.getMinOffset(), request.getIntValue("max_records"), TIMEOUT_MS);
        }
        JSONArray records = new JSONArray();
        if (pulled.getPullStatus() == PullStatus.FOUND) {
            for (MessageExt message : pulled.getMsgFoundList()) {
                JSONObject record = JSON.parseObject(new String(message.getBody(), StandardCharsets.UTF_8));
                record.put("offset", message.getQueueOffset());
                records.add(record);
            }
        }
        answer.put("records", records);
    }

    private void listOffset(JSONObject request, JSONObject answer) throws Exception {
        Object query = request.get("query");
        long offset;
        if ("earliest".equals(query)) {
            offset = consumer.minOffset(queue(request));
        } else if ("latest".equals(query)) {
            offset = consumer.maxOffset(queue(request));
        } else {
            offset = consumer.searchOffset(queue(request), ((JSONObject) query).getLongValue("timestamp"));
        }
        answer.put("offset", offset);
        answer.put("timestamp_ms", -1);
    }

    private static MessageQueue queue(JSONObject request) {
        return new MessageQueue(request.getString("topic"), BROKER, request.getIntValue("partition"));
    }
}
