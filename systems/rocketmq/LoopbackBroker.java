/*
 * Starts an Apache RocketMQ broker whose replication port, too, listens on 127.0.0.1 alone.
 * RocketMQ binds that one port to every address and has no setting for it; everything else is its own start.
 */
import java.io.IOException;
import java.lang.reflect.Field;
import java.net.InetSocketAddress;
import org.apache.rocketmq.broker.BrokerController;
import org.apache.rocketmq.broker.BrokerStartup;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.ha.DefaultHAService;

public final class LoopbackBroker {
    public static void main(String[] arguments) {
        try {
            BrokerController controller = BrokerStartup.createBrokerController(arguments);
            field(DefaultMessageStore.class, "haService").set(controller.getMessageStore(), new LoopbackReplication());
            BrokerStartup.start(controller);
        } catch (Exception error) {
            error.printStackTrace();
            // Threads of the broker are running by now and would keep the process.
            System.exit(1);
        }
    }

    private static final class LoopbackReplication extends DefaultHAService {
        @Override
        public void init(DefaultMessageStore store) throws IOException {
            super.init(store);
            int port = store.getMessageStoreConfig().getHaListenPort();
            try {
                Field address = field(acceptSocketService.getClass().getSuperclass(), "socketAddressListen");
                address.set(acceptSocketService, new InetSocketAddress("127.0.0.1", port));
            } catch (ReflectiveOperationException error) {
                throw new IOException("this version of RocketMQ keeps its replication address elsewhere", error);
            }
        }
    }

    private static Field field(Class<?> type, String name) throws NoSuchFieldException {
        Field found = type.getDeclaredField(name);
        found.setAccessible(true);
        return found;
    }
}
