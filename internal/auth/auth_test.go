package auth

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quicflow/quicflow/internal/release"
)

func TestJoinTokenComesBackAsItWent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fingerprint := [sha256.Size]byte(rapid.SliceOfN(rapid.Byte(), sha256.Size, sha256.Size).Draw(t, "fingerprint"))
		token := NewJoinToken(fingerprint)
		got, err := ParseJoinToken(" " + token.String() + "\n")
		require.NoError(t, err)
		require.Equal(t, token, got)
		require.Equal(t, HashSecret(token.Secret), got.Hash())
	})
}

func TestDamagedJoinTokens(t *testing.T) {
	good := NewJoinToken([sha256.Size]byte{1, 2, 3}).String()
	parts := strings.Split(good, ".")
	for text, why := range map[string]string{
		"":                                       "has the form",
		"qfj1":                                   "has the form",
		"qfj1." + parts[1]:                       "has the form",
		"qfj2." + parts[1] + "." + parts[2]:      "has the form",
		good[:len(good)-1]:                       "secret in the join token is damaged",
		good + "A":                               "secret in the join token is damaged",
		good + ".x":                              "secret in the join token is damaged",
		"qfj1.AAAA." + parts[2]:                  "fingerprint in the join token is damaged",
		"qfj1.*" + parts[1][1:] + "." + parts[2]: "fingerprint in the join token is damaged",
	} {
		_, err := ParseJoinToken(text)
		require.ErrorIs(t, err, release.ErrInvalid, text)
		require.ErrorContains(t, err, why, text)
		if len(text) > len(parts[2]) {
			require.NotContains(t, err.Error(), parts[2], "an error must not give the secret away")
		}
	}
}

func TestAPITokens(t *testing.T) {
	text, hash := NewAPIToken()
	other, _ := NewAPIToken()
	require.NotEqual(t, text, other)
	require.True(t, strings.HasPrefix(text, "qfa_"))
	require.Equal(t, HashSecret(text), hash)
	require.Len(t, hash, 64)
	require.True(t, LooksLikeAPIToken(text))
	for _, wrong := range []string{"", "qfa_", text[:20], text + "x", "qfj1" + text[4:], "qfa_" + strings.Repeat("!", 43)} {
		require.False(t, LooksLikeAPIToken(wrong), wrong)
	}
}

func TestSecretsAreStoredHashed(t *testing.T) {
	// The digest of an empty text and of "abc", as FIPS 180-2 gives them.
	require.Equal(t, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", HashSecret(""))
	require.Equal(t, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", HashSecret("abc"))
}

func TestRefusalsAreToldApart(t *testing.T) {
	all := []error{ErrTokenUnknown, ErrTokenExpired, ErrTokenUsedUp, ErrIDNotAllowed, ErrIDTaken}
	for i, a := range all {
		require.ErrorIs(t, a, release.ErrForbidden)
		for j, b := range all {
			require.Equal(t, i == j, errors.Is(a, b))
		}
	}
}
