.DEFAULT_GOAL := help
.PHONY: help run test test-matrix test-upgrade lint bench load steps fuzz openapi

help: ## this list
	@sed -n 's/^\([a-z-]*\): ## /\1\t/p' Makefile | expand -t 8

run: ## build, find or start MySQL and Redis, start Dibs, show a first claim; Ctrl-C stops everything
	@scripts/run

test: ## lint, and every test on real servers
	@scripts/test

test-matrix: ## the tests on every pair of servers that this machine has, and a table (MATRIX_ARGUMENTS="-E 'test(i5_)'")
	@scripts/test-matrix $(MATRIX_ARGUMENTS)

test-upgrade: ## an upgrade under load, old and new version side by side, and the audits (PREVIOUS=v0.1.0)
	@PREVIOUS='$(PREVIOUS)' scripts/test-upgrade

lint: ## format, clippy, documents against the code, licences, scripts, workflows, alerts, manifests
	@scripts/lint

bench: ## the figures, measured side by side on this machine (BENCH_ARGUMENTS='...')
	@scripts/bench

load: ## a burst on the running stack, or on one of its own, one with faults, and their audits (FAULTS=2, LOAD_ARGUMENTS='[shop] ...')
	@scripts/load

steps: ## cut and freeze at every message of every operation, audit each time, print the table (STEPS='Claim Order')
	@STEPS='$(or $(STEPS),all)' scripts/with-servers -- cargo test --quiet --package dibs-loadtest --test it -- --nocapture no_message_of_any_operation

fuzz: ## every route with what the OpenAPI document allows and what it does not, by Schemathesis of PyPI (FUZZ_EXAMPLES=100)
	@FUZZ_EXAMPLES='$(FUZZ_EXAMPLES)' scripts/fuzz

openapi: ## write api/openapi.json from the code
	@cargo run --quiet --package dibs-api -- openapi >api/openapi.json.new
	@mv api/openapi.json.new api/openapi.json
