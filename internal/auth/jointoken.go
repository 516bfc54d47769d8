package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

// joinPrefix names the form of the join token; another form gets another one.
const joinPrefix = "qfj1"

// What redeeming a join token can end in. The store returns them, the hub turns them into the codes of the protocol.
var (
	ErrTokenUnknown = refusal("the join token is not known")
	ErrTokenExpired = refusal("the join token has expired")
	ErrTokenUsedUp  = refusal("the join token has been used as often as it may be")
	ErrIDNotAllowed = refusal("the join token is not for this client id")
	ErrIDTaken      = refusal("the client id is taken; joining it again wants a token that replaces")
)

func refusal(message string) error {
	return &release.Error{Code: release.CodeForbidden, Message: message}
}

// Redemption is one use of a join token by a client that shows its public key. The same client with the same key may
// redeem the same token again: the first answer may have been lost.
type Redemption struct {
	TokenHash     string // HashSecret of the token's secret
	ClientID      string
	PublicKeyHash string // pki.PublicKeyHash
	At            time.Time
}

// JoinToken is what an agent needs to join once: whom to trust, and what to show.
type JoinToken struct {
	Fingerprint [sha256.Size]byte // SHA-256 of the DER of the CA's certificate; the agent pins it
	Secret      string            // goes into EnrolRequest.token_secret; the store keeps HashSecret of it
}

// NewJoinToken mints a join token for the CA of this fingerprint.
func NewJoinToken(fingerprint [sha256.Size]byte) JoinToken {
	return JoinToken{Fingerprint: fingerprint, Secret: newSecret()}
}

// String is the text that people carry to the host: qfj1.<fingerprint>.<secret>, both base64url.
func (t JoinToken) String() string {
	return joinPrefix + "." + base64.RawURLEncoding.EncodeToString(t.Fingerprint[:]) + "." + t.Secret
}

// Hash is what the store keeps of the token.
func (t JoinToken) Hash() string { return HashSecret(t.Secret) }

// ParseJoinToken takes the text of a join token apart. White space around it is ignored. Errors are *release.Error.
func ParseJoinToken(text string) (JoinToken, error) {
	prefix, rest, _ := strings.Cut(strings.TrimSpace(text), ".")
	fingerprint, secret, ok := strings.Cut(rest, ".")
	if prefix != joinPrefix || !ok {
		return JoinToken{}, release.Invalid("token", "a join token has the form %s.<fingerprint>.<secret>", joinPrefix)
	}
	sum, err := base64.RawURLEncoding.Strict().DecodeString(fingerprint)
	if err != nil || len(sum) != sha256.Size {
		return JoinToken{}, release.Invalid("token", "the fingerprint in the join token is damaged; copy it again")
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(secret)
	if err != nil || len(raw) != secretSize {
		return JoinToken{}, release.Invalid("token", "the secret in the join token is damaged; copy it again")
	}
	return JoinToken{Fingerprint: [sha256.Size]byte(sum), Secret: secret}, nil
}
