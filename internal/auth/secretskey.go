package auth

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/quicflow/quicflow/internal/durable"
)

// secretsKeySize is the length of a key for secret variables, in bytes.
const secretsKeySize = 32

// LoadSecretsKey reads the key that encrypts secret variables: 64 hexadecimal digits. With create it makes the file (0600) if there is
// none; without it, a file that is missing is an error that says how to make it.
func LoadSecretsKey(file string, create bool) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err == nil {
		key, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil || len(key) != secretsKeySize {
			return nil, fmt.Errorf("the key of secret variables, %s, is damaged: it is not %d hexadecimal digits; restore it from a backup, as they cannot be read without it",
				file, 2*secretsKeySize)
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the key of secret variables: %w", err)
	}
	if !create {
		return nil, fmt.Errorf("the key of secret variables, %s, does not exist; make one with: openssl rand -hex %d > %s", file, secretsKeySize, file)
	}
	key := make([]byte, secretsKeySize)
	_, _ = rand.Read(key) // never fails
	if err := durable.WriteFile(file, []byte(hex.EncodeToString(key)+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("write the key of secret variables: %w", err)
	}
	return key, nil
}
