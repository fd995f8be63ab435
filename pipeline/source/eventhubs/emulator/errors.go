package emulator

import "github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"

// Error conditions, as AMQP and the service name them.
const (
	condNotFound       wire.Symbol = "amqp:not-found"
	condUnauthorized   wire.Symbol = "amqp:unauthorized-access"
	condDecode         wire.Symbol = "amqp:decode-error"
	condResourceLimit  wire.Symbol = "amqp:resource-limit-exceeded"
	condNotAllowed     wire.Symbol = "amqp:not-allowed"
	condInvalidField   wire.Symbol = "amqp:invalid-field"
	condNotImplemented wire.Symbol = "amqp:not-implemented"
	condForced         wire.Symbol = "amqp:connection:forced"
	condFraming        wire.Symbol = "amqp:connection:framing-error"
	condWindow         wire.Symbol = "amqp:session:window-violation"
	condHandleInUse    wire.Symbol = "amqp:session:handle-in-use"
	condUnattached     wire.Symbol = "amqp:session:unattached-handle"
	condTransferLimit  wire.Symbol = "amqp:link:transfer-limit-exceeded"
	condMessageSize    wire.Symbol = "amqp:link:message-size-exceeded"
	condStolen         wire.Symbol = "amqp:link:stolen"
	condServerBusy     wire.Symbol = "com.microsoft:server-busy"
	condOutOfRange     wire.Symbol = "com.microsoft:argument-out-of-range"
	condArgument       wire.Symbol = "com.microsoft:argument-error"
)
