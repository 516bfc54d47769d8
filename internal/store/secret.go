package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
)

// SecretKeySize is the length of Config.SecretKey, in bytes.
const SecretKeySize = 32

// A sealed value is this version, the fingerprint of its key, a nonce and what AES-256-GCM makes of the value. Where it is kept is
// authenticated with it, so that it is of no use elsewhere in the database.
const (
	sealedVersion   = 1
	fingerprintSize = 8
)

var errNoKey = errors.New("the store has no key for secrets")

// sealer encrypts secrets. Its zero value has no key.
type sealer struct {
	aead        cipher.AEAD
	fingerprint []byte
}

func newSealer(key []byte) sealer {
	if len(key) == 0 {
		return sealer{}
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // its length was checked
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has the block size that it wants
	}
	sum := sha256.Sum256(append([]byte("quicflow secrets "), key...))
	return sealer{aead: aead, fingerprint: sum[:fingerprintSize]}
}

func (s sealer) seal(value, place string) ([]byte, error) {
	if s.aead == nil {
		return nil, errNoKey
	}
	nonce := make([]byte, s.aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	head := append([]byte{sealedVersion}, s.fingerprint...)
	return s.aead.Seal(append(head, nonce...), nonce, []byte(value), []byte(place)), nil
}

func (s sealer) open(sealed []byte, place string) (string, error) {
	const head = 1 + fingerprintSize
	switch {
	case s.aead == nil:
		return "", errNoKey
	case len(sealed) < head+s.aead.NonceSize() || sealed[0] != sealedVersion:
		return "", errors.New("it is damaged")
	case subtle.ConstantTimeCompare(sealed[1:head], s.fingerprint) != 1:
		return "", errors.New("it was encrypted with another key than this server's (secrets.key, or server.secrets_key_file)")
	}
	nonce := sealed[head : head+s.aead.NonceSize()]
	value, err := s.aead.Open(nil, nonce, sealed[head+s.aead.NonceSize():], []byte(place))
	if err != nil {
		return "", fmt.Errorf("it is damaged: %w", err)
	}
	return string(value), nil
}
