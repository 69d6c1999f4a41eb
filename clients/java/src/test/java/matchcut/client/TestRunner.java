package matchcut.client;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;

/** Runs every test, each on a new object of its class, without a library; the exit status is 1 if one fails. */
final class TestRunner {
    private static final List<Class<?>> CLASSES = List.of(
            RetryTest.class,
            ErrorsTest.class,
            MediaTest.class,
            EventsTest.class,
            UnaryTest.class,
            UploadTest.class,
            LiveTest.class);

    private TestRunner() {}

    public static void main(String[] args) throws ReflectiveOperationException {
        int passed = 0;
        int failed = 0;
        for (Class<?> type : CLASSES) {
            Method[] methods = type.getDeclaredMethods();
            Arrays.sort(methods, Comparator.comparing(Method::getName));
            for (Method method : methods) {
                if (!method.isAnnotationPresent(Test.class)) {
                    continue;
                }
                Object test = type.getDeclaredConstructor().newInstance();
                try {
                    method.invoke(test);
                    passed++;
                } catch (InvocationTargetException error) {
                    failed++;
                    System.out.println("FAILED " + type.getSimpleName() + "." + method.getName());
                    error.getCause().printStackTrace(System.out);
                } finally {
                    if (test instanceof AutoCloseable closeable) {
                        close(closeable);
                    }
                }
            }
        }
        System.out.println(passed + " passed, " + failed + " failed");
        System.exit(failed == 0 && passed > 0 ? 0 : 1);
    }

    private static void close(AutoCloseable test) {
        try {
            test.close();
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }
}
