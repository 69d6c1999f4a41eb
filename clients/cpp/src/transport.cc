#include "transport.h"

#include <grpc/grpc.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include <algorithm>
#include <condition_variable>
#include <fstream>
#include <iterator>
#include <mutex>
#include <optional>
#include <stdexcept>

#include "failure.h"

namespace matchcut::detail {

namespace {

using Stub = grpc::TemplatedGenericStub<Message, Message>;

constexpr int kMaxMessage = 64 * 1024 * 1024;  // a page of items with attributes, a frame of 4K

std::string content(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file) {
    throw std::filesystem::filesystem_error("cannot read", path, std::make_error_code(std::errc::io_error));
  }
  return text;
}

std::shared_ptr<grpc::ChannelCredentials> credentials(const std::optional<Tls>& tls) {
  if (!tls) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  if (!tls->authorities.empty()) options.pem_root_certs = content(tls->authorities);
  if (!tls->certificate.empty()) options.pem_cert_chain = content(tls->certificate);
  if (!tls->key.empty()) options.pem_private_key = content(tls->key);
  return grpc::SslCredentials(options);
}

/// The context of one try.
struct Context {
  Context(const std::string& authorization, const Bounds& bounds) : stopped(bounds.stop, Cancel{&context}) {
    if (!authorization.empty()) context.AddMetadata("authorization", authorization);
    if (bounds.deadline) context.set_deadline(*bounds.deadline);
  }

  struct Cancel {
    grpc::ClientContext* context;
    void operator()() const { context->TryCancel(); }
  };

  grpc::ClientContext context;
  std::stop_callback<Cancel> stopped;
};

void check(const grpc::Status& status) {
  if (!status.ok()) raise(status.error_code(), status.error_message(), status.error_details());
}

/// Turns gRPC's callbacks into waiting. A hold keeps the call from ending while operations may still be
/// started.
class Reactor final : public Stream, grpc::ClientBidiReactor<Message, Message> {
 public:
  Reactor(Stub& stub, const std::string& method, const Message& reply, const std::string& authorization,
          const Bounds& bounds)
      : kind_(reply), slot_(reply.New()), context_(authorization, bounds) {
    stub.PrepareBidiStreamingCall(&context_.context, method, {}, this);
    AddHold();
    StartRead(slot_.get());
    StartCall();
  }

  ~Reactor() override {
    context_.context.TryCancel();
    finish();
  }

  bool write(const Message& message) override {
    const std::lock_guard turn(turn_);
    if (!begin_writing(false)) return false;
    StartWrite(&message);
    return written();
  }

  void end_writing() override {
    const std::lock_guard turn(turn_);
    if (!begin_writing(true)) return;
    StartWritesDone();
    written();
  }

  bool answered() override {
    const std::lock_guard lock(mutex_);
    return ready_;
  }

  std::unique_ptr<Message> read() override {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return ready_ || over_; });
      if (ready_) {
        ready_ = false;
        auto reply = std::exchange(slot_, std::unique_ptr<Message>(kind_.New()));
        lock.unlock();
        StartRead(slot_.get());
        return reply;
      }
    }
    finish();
    check(status_);
    return nullptr;
  }

  void cancel() override { context_.context.TryCancel(); }

 private:
  void OnReadDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    (ok ? ready_ : over_) = true;
    changed_.notify_all();
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    closed_ = closed_ || !ok;
    changed_.notify_all();
  }

  void OnWritesDoneDone(bool ok) override { OnWriteDone(ok); }

  void OnDone(const grpc::Status& status) override {
    const std::lock_guard lock(mutex_);
    status_ = status;
    done_ = true;
    changed_.notify_all();  // under the lock: whoever waits may destroy this
  }

  bool begin_writing(bool last) {
    const std::lock_guard lock(mutex_);
    if (closed_ || over_) return false;
    closed_ = last;
    return writing_ = true;
  }

  bool written() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !writing_; });
    return !closed_;
  }

  /// Waits for the end of a call of which no more is wanted.
  void finish() {
    std::unique_lock lock(mutex_);
    closed_ = true;
    changed_.wait(lock, [&] { return !writing_; });
    if (!std::exchange(released_, true)) {
      lock.unlock();
      RemoveHold();
      lock.lock();
    }
    changed_.wait(lock, [&] { return done_; });
  }

  const Message& kind_;
  std::unique_ptr<Message> slot_;  // where the next reply goes
  std::mutex turn_;                // of writers
  std::mutex mutex_;               // of what follows
  std::condition_variable changed_;
  bool ready_ = false;     // the slot has a reply
  bool over_ = false;      // no more replies come
  bool writing_ = false;   // a message is on its way to the transport
  bool closed_ = false;    // no more messages are taken
  bool released_ = false;  // the hold is removed
  bool done_ = false;      // the status is known
  grpc::Status status_;
  Context context_;  // last: its destructor waits for a stop under way
};

}  // namespace

Bounds::Bounds(Seconds timeout, std::stop_token stop) : stop(std::move(stop)) {
  using Clock = std::chrono::system_clock;
  if (timeout < std::chrono::years(10)) {  // more would overflow the clock
    deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(timeout);
  }
}

struct Transport::Channel {
  std::string authorization;
  mutable Stub stub;
};

Transport::Transport(const std::string& target, const ClientOptions& options) {
  // Keeps gRPC's own few threads until the program ends. Otherwise the last channel's destructor would end them, and
  // where large messages were given up gRPC 1.51 then waits for up to 10 s for one that polls.
  [[maybe_unused]] static const bool kept = (grpc_init(), true);
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessage);
  arguments.SetMaxSendMessageSize(kMaxMessage);
  // A connection of its own, which clients of one process would share else: the server is fair between connections.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto channel = grpc::CreateCustomChannel(target, credentials(options.tls), arguments);
  // gRPC ends the process over any other, and prints the token.
  const auto sendable = [](char c) { return c >= ' ' && c <= '~'; };
  if (!std::all_of(options.token.begin(), options.token.end(), sendable)) {
    throw std::invalid_argument("the token has bytes that no header may have, such as the end of a line");
  }
  auto authorization = options.token.empty() ? "" : "Bearer " + options.token;
  channel_ = std::make_shared<Channel>(std::move(authorization), Stub(std::move(channel)));
}

Transport::~Transport() = default;

void Transport::unary(const std::string& method, const Message& request, Message& reply, const Bounds& bounds) const {
  Context context(channel_->authorization, bounds);
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<grpc::Status> status;
  channel_->stub.UnaryCall(&context.context, method, {}, &request, &reply, [&](grpc::Status answer) {
    const std::lock_guard lock(mutex);
    status = std::move(answer);
    changed.notify_all();
  });
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return status.has_value(); });
  check(*status);
}

std::unique_ptr<Stream> Transport::open(const std::string& method, const Message& reply, const Bounds& bounds) const {
  return std::make_unique<Reactor>(channel_->stub, method, reply, channel_->authorization, bounds);
}

}  // namespace matchcut::detail
