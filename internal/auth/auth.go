// Package auth holds the secrets that people and hosts show: join tokens for agents and API tokens for administrators.
//
// A secret is printed once, where it is minted; everything that keeps it keeps HashSecret of it.
package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
)

// secretSize is the entropy of every secret, in bytes. It is high enough for a plain hash to protect it.
const secretSize = 32

// HashSecret is how a secret is stored: SHA-256 in hexadecimal.
func HashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func newSecret() string {
	b := make([]byte, secretSize)
	rand.Read(b) // never fails: it ends the program instead
	return base64.RawURLEncoding.EncodeToString(b)
}
