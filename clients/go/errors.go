package matchcut

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What errors.Is tells of an *Error. Beside these, a call whose context ended is also context.Canceled or
// context.DeadlineExceeded.
var (
	// ErrInvalidInput is INVALID_ARGUMENT or OUT_OF_RANGE: a field is missing, malformed or out of range.
	ErrInvalidInput = errors.New("matchcut: invalid input")
	// ErrNotFound is NOT_FOUND: there is no such item.
	ErrNotFound = errors.New("matchcut: not found")
	// ErrFailedPrecondition is FAILED_PRECONDITION: it does not fit the server's state, as vectors of another encoder.
	ErrFailedPrecondition = errors.New("matchcut: failed precondition")
	// ErrOverloaded is RESOURCE_EXHAUSTED: no place is free, or a limit is reached; Error.RetryAfter says when to come
	// back. With the reason DEVICE_MEMORY_FULL it did not fit into the memory of the server's GPU: ask for less at once.
	ErrOverloaded = errors.New("matchcut: overloaded")
	// ErrDeadlineExceeded is DEADLINE_EXCEEDED: the time was over.
	ErrDeadlineExceeded = errors.New("matchcut: deadline exceeded")
	// ErrCancelled is CANCELLED: by the context, by closing what the call belongs to, or by the server.
	ErrCancelled = errors.New("matchcut: cancelled")
	// ErrUnavailable is UNAVAILABLE: the server cannot be reached or is shutting down. With the reason DEVICE_LOST it has
	// lost its GPU and has to be started again.
	ErrUnavailable = errors.New("matchcut: unavailable")
	// ErrUnauthenticated is UNAUTHENTICATED: the token or certificate is missing or not accepted.
	ErrUnauthenticated = errors.New("matchcut: unauthenticated")
	// ErrNotAllowed is PERMISSION_DENIED: the server was started with an option that forbids it, as --users off.
	ErrNotAllowed = errors.New("matchcut: not allowed")
	// ErrServer is any other: a fault of the server.
	ErrServer = errors.New("matchcut: server error")
)

var sentinels = map[codes.Code]error{
	codes.InvalidArgument:    ErrInvalidInput,
	codes.OutOfRange:         ErrInvalidInput,
	codes.NotFound:           ErrNotFound,
	codes.FailedPrecondition: ErrFailedPrecondition,
	codes.ResourceExhausted:  ErrOverloaded,
	codes.DeadlineExceeded:   ErrDeadlineExceeded,
	codes.Canceled:           ErrCancelled,
	codes.Unavailable:        ErrUnavailable,
	codes.Unauthenticated:    ErrUnauthenticated,
	codes.PermissionDenied:   ErrNotAllowed,
}

// Error is what the server, or the way to it, answers instead of a reply. Get it with errors.As, or ask errors.Is for
// one of the Err variables.
type Error struct {
	// Code is the status of gRPC.
	Code codes.Code
	// Message is the server's sentence for people, which says what to do.
	Message string
	// Reason is a stable word in capitals for programs, as ITEM_NOT_FOUND. Empty: the server gave none.
	Reason string
	// Field is the path of the request's field at fault, as item.item_id. Empty: none is.
	Field string
	// RetryAfter is how long to wait before the next try. 0: at once, or the server gave none.
	RetryAfter time.Duration

	wished bool // the server gave RetryAfter
	status *status.Status
}

// Error is the message, with the code, the reason and the field.
func (e *Error) Error() string {
	known := []string{e.Code.String()}
	for _, word := range []string{e.Reason, e.Field} {
		if word != "" {
			known = append(known, word)
		}
	}
	return fmt.Sprintf("matchcut: %s (%s)", e.Message, strings.Join(known, ", "))
}

// Is makes errors.Is true for the Err variable of the code, and for the context error that it stands for.
func (e *Error) Is(target error) bool {
	switch target {
	case context.Canceled:
		return e.Code == codes.Canceled
	case context.DeadlineExceeded:
		return e.Code == codes.DeadlineExceeded
	}
	sentinel, known := sentinels[e.Code]
	if !known {
		sentinel = ErrServer
	}
	return target == sentinel
}

// GRPCStatus is the status with all its details, for status.FromError and status.Code.
func (e *Error) GRPCStatus() *status.Status {
	return e.status
}

// fromRPC makes the *Error of a failed call. What is no status, as the error of a caller's reader, stays as it is.
func fromRPC(err error) error {
	var done *Error
	if err == nil || errors.As(err, &done) {
		return err
	}
	if err == context.Canceled || err == context.DeadlineExceeded {
		err = status.FromContextError(err).Err()
	}
	told, ok := status.FromError(err)
	if !ok {
		return err
	}
	failed := &Error{Code: told.Code(), Message: told.Message(), status: told}
	if failed.Message == "" {
		failed.Message = fmt.Sprintf("the call failed with status %v and no message", told.Code())
	}
	for _, detail := range told.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			failed.Reason = detail.GetReason()
		case *errdetails.BadRequest:
			if fields := detail.GetFieldViolations(); len(fields) > 0 {
				failed.Field = fields[0].GetField()
			}
		case *errdetails.RetryInfo:
			failed.RetryAfter, failed.wished = detail.GetRetryDelay().AsDuration(), true // which no wish overflows
			if failed.RetryAfter < 0 {
				failed.RetryAfter = 0
			}
		}
	}
	return failed
}

// broken is the error of a server that ends a call too early.
func broken(message string) *Error {
	return fromRPC(status.Error(codes.Internal, message)).(*Error)
}
