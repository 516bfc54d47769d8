package auth

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSecretsKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secrets.key")
	_, err := LoadSecretsKey(file, false)
	require.ErrorContains(t, err, "openssl rand -hex 32 > "+file)
	key, err := LoadSecretsKey(file, true)
	require.NoError(t, err)
	require.Len(t, key, 32)
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	for _, create := range []bool{true, false} {
		again, err := LoadSecretsKey(file, create)
		require.NoError(t, err)
		require.Equal(t, key, again)
	}
	for _, damaged := range []string{"", "abc", "zz" + string(make([]byte, 62))} {
		require.NoError(t, os.WriteFile(file, []byte(damaged), 0o600))
		_, err = LoadSecretsKey(file, true)
		require.ErrorContains(t, err, "is damaged")
	}
}
