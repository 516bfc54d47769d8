package api

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	sessionCookie = "quicflow_session"
	sessionTime   = 12 * time.Hour
	minSessionKey = 32
)

// sessions makes and checks the cookies of logins. A cookie says which token was used, by its hash, and until when it
// holds, signed; so a login ends when its token does, and nothing needs to be kept.
type sessions struct {
	key []byte
	now func() time.Time
}

type sessionClaim struct {
	TokenHash string `json:"t"`
	Expires   int64  `json:"e"`
}

// cookie gives a cookie for a token. Over TLS it is never sent without.
func (s sessions) cookie(tokenHash string, tls bool) *http.Cookie {
	claim, _ := json.Marshal(sessionClaim{TokenHash: tokenHash, Expires: s.now().Add(sessionTime).Unix()})
	payload := base64.RawURLEncoding.EncodeToString(claim)
	return &http.Cookie{
		Name:     sessionCookie,
		Value:    payload + "." + s.sign(payload),
		Path:     "/",
		MaxAge:   int(sessionTime.Seconds()),
		HttpOnly: true,
		Secure:   tls,
		SameSite: http.SameSiteLaxMode,
	}
}

// tokenHash gives the hash of the token that a cookie was made for, if the cookie is ours and holds.
func (s sessions) tokenHash(r *http.Request) (string, bool) {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil {
		return "", false
	}
	payload, mac, _ := strings.Cut(cookie.Value, ".")
	if !hmac.Equal([]byte(mac), []byte(s.sign(payload))) {
		return "", false
	}
	text, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return "", false
	}
	var claim sessionClaim
	if err := json.Unmarshal(text, &claim); err != nil || s.now().Unix() >= claim.Expires {
		return "", false
	}
	return claim.TokenHash, true
}

func (s sessions) sign(payload string) string {
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(payload))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// endCookie makes a browser forget its login.
func endCookie() *http.Cookie {
	return &http.Cookie{Name: sessionCookie, Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// LoadSessionKey reads the key that signs logins, and makes the file if there is none: with it, logins survive a restart.
func LoadSessionKey(file string) ([]byte, error) {
	key, err := os.ReadFile(file)
	if err == nil {
		if len(key) < minSessionKey {
			return nil, fmt.Errorf("session key %s is damaged: %d bytes; remove it to get a new one", file, len(key))
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read session key: %w", err)
	}
	key = make([]byte, minSessionKey)
	_, _ = rand.Read(key) // never fails
	// By way of another name, so that a crash cannot leave half a key.
	part := filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".new")
	if err := os.WriteFile(part, key, 0o600); err != nil {
		return nil, fmt.Errorf("write session key: %w", err)
	}
	if err := os.Rename(part, file); err != nil {
		return nil, fmt.Errorf("write session key: %w", err)
	}
	return key, nil
}
