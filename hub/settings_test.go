package hub_test

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/config"
)

// Every key of these sections gets to the hub. What it does there, the tests of the hub show.
func TestEveryKeyReachesTheHub(t *testing.T) {
	elsewhere := map[string]bool{ // of the stores
		"Logs.Retention": true, "Logs.MaxBytes": true,
		"Artifacts.Store": true, "Artifacts.Dir": true, "Artifacts.S3": true, "Artifacts.MaxBytes": true, "Artifacts.Retention": true,
	}
	before := hub.Settings(config.Standard())
	for _, section := range []string{"Session", "Message", "QUIC", "Logs", "Artifacts"} {
		fields := reflect.TypeFor[config.Config]()
		sectionField, ok := fields.FieldByName(section)
		require.True(t, ok)
		for i := range sectionField.Type.NumField() {
			name := section + "." + sectionField.Type.Field(i).Name
			if elsewhere[name] {
				continue
			}
			c := config.Standard()
			field := reflect.ValueOf(&c).Elem().FieldByName(section).Field(i)
			switch field.Kind() {
			case reflect.String:
				field.SetString("other.example.com:1")
			default:
				field.SetInt(field.Int() + 1)
			}
			require.NotEqual(t, before, hub.Settings(c), name)
		}
	}
	c := config.Standard()
	c.Server.MaxClients++
	require.NotEqual(t, before, hub.Settings(c))
	c = config.Standard()
	c.Server.Addr = "127.0.0.1:1"
	require.NotEqual(t, before, hub.Settings(c))
	c = config.Standard()
	c.TLS.PostQuantum = false
	require.NotEqual(t, before, hub.Settings(c))
}
