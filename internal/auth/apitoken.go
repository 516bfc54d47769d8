package auth

import (
	"encoding/base64"
	"strings"
)

// APITokenPrefix begins every API token, so that leaked ones can be found by a scanner.
const APITokenPrefix = "qfa_"

// NewAPIToken mints a token for the HTTP API and gives the hash to store, which is HashSecret of the whole text.
func NewAPIToken() (text, hash string) {
	text = APITokenPrefix + newSecret()
	return text, HashSecret(text)
}

// LooksLikeAPIToken says whether text has the form of an API token; it spares the store a look-up of anything else.
func LooksLikeAPIToken(text string) bool {
	secret, ok := strings.CutPrefix(text, APITokenPrefix)
	if !ok {
		return false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(secret)
	return err == nil && len(b) == secretSize
}
