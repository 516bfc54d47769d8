// Package apiclient talks to QuicFlow's HTTP API. Types and methods are generated from the API's OpenAPI document.
package apiclient

//go:generate go tool -modfile=../../tools/go.mod oapi-codegen -config oapi-codegen.yaml ../../api/openapi.yaml
