# SPDX-License-Identifier: Apache-2.0
# Lathe. `make demo` first, `make check` second, `make help` for the rest.
# B: build folder. SAN: "", "address,undefined" or "thread"; each has its own build folder.

B ?= build
SAN ?=
CC ?= cc
PREFIX ?= /usr/local
OPT ?= -O2 -g
V ?= 0
Q := $(if $(filter 1,$(V)),,@)

# One compiler for each processor, unless this make was told how many.
at_once = $(if $(findstring j,$(MAKEFLAGS)),,-j$(shell nproc))

.DEFAULT_GOAL := all
goals := $(or $(MAKECMDGOALS),all)
needs_deps := $(filter-out help clean setup setup-check demo check lint,$(goals))

# Pinned packages: fetched, verified and unpacked outside the tree, once; their places come as make variables.
ifneq ($(needs_deps),)
include $(B)/deps.mk
endif
$(B)/deps.mk: deps/manifest deps/fetch
	@mkdir -p $(B)
	@deps/fetch packages
	@deps/fetch paths > $@.tmp && mv $@.tmp $@

pkgs := libevent_core libevent_pthreads openssl sqlite3 libpq yaml-0.1 libcurl
warn := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-missing-field-initializers
cflags = -std=gnu17 -D_GNU_SOURCE $(OPT) $(warn) -fno-strict-aliasing -fstack-protector-strong -Isrc -I$(B) \
         -isystem $(YYJSON_DIR) -isystem $(LLHTTP_DIR)/include \
         $(shell pkg-config --cflags $(pkgs) 2>/dev/null | sed 's/-I/-isystem /g') $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer)
ldflags = $(if $(SAN),-fsanitize=$(SAN))
comma := ,
third_san = $(addprefix -fsanitize=,$(firstword $(subst $(comma), ,$(SAN))))
libs = $(shell pkg-config --libs $(pkgs) 2>/dev/null) -lpthread -lm

layers := base os net db blob job res llm
mods := $(patsubst src/mod/%/,%,$(wildcard src/mod/*/))
all_c := $(wildcard $(layers:%=src/%/*.c) src/mod/*/*.c test/*_test.c bench/*_test.c)
test_c := $(filter %_test.c,$(all_c))
lib_c := $(filter-out %_test.c,$(all_c))
lib_o := $(lib_c:%.c=$(B)/o/%.o)
test_o := $(test_c:%.c=$(B)/o/%.o)
third_o := $(B)/o/third/yyjson.o $(B)/o/third/api.o $(B)/o/third/http.o $(B)/o/third/llhttp.o
bench_o := $(patsubst %.c,$(B)/o/%.o,$(filter-out %_test.c,$(wildcard bench/*.c)))
fake_o := $(patsubst %.c,$(B)/o/%.o,$(wildcard test/fake/*.c))

.PHONY: all help setup setup-check demo check test sim inject san tsan cover fuzz lint install bench mutants clean
all: $(B)/lathe $(B)/lathe-test $(if $(fake_o),$(B)/fake-engine) $(B)/lathe-load ## build everything
$(B)/lathe: $(B)/o/src/main.o $(B)/o/src/modules.o $(lib_o) $(third_o)
	@echo "  link  $@"; $(CC) $(ldflags) -o $@ $^ $(libs)
$(B)/lathe-test: $(B)/o/test/main.o $(B)/o/src/modules.o $(test_o) $(lib_o) $(third_o) \
                 $(B)/o/bench/hist.o $(B)/o/bench/arrival.o
	@echo "  link  $@"; $(CC) $(ldflags) -o $@ $^ $(libs)
$(B)/fake-engine: $(fake_o) $(filter $(B)/o/src/base/% $(B)/o/src/os/% $(B)/o/src/net/%,$(lib_o)) $(third_o)
	@echo "  link  $@"; $(CC) $(ldflags) -o $@ $^ $(libs)

$(B)/lathe-load: $(bench_o) $(filter $(B)/o/src/base/% $(B)/o/src/os/% $(B)/o/src/net/%,$(lib_o)) $(third_o)
	@echo "  link  $@"; $(CC) $(ldflags) -o $@ $^ $(libs)

# The real program on simulated machines: it is a library there, on the simulation's base and os, with pthread's waiting calls
# replaced by its linker (test/sim/sim_run.h).
sim_o := $(patsubst %.c,$(B)/o/%.o,$(wildcard test/sim/*.c))
sim_wraps := mutex_lock mutex_unlock cond_wait cond_timedwait cond_clockwait cond_signal cond_broadcast rwlock_rdlock \
    rwlock_wrlock rwlock_unlock
sim_wrap = $(sim_wraps:%=-Wl,--wrap=pthread_%)
sim_so = $(CC) $(ldflags) -shared -Wl,-Bsymbolic $(sim_wrap) $(sim_alone:%=-Wl,--wrap=%) -o $@ $^ $(libs)
sim_alone := os_real fwrite fprintf _Exit
sim_third = $(filter-out %/yyjson.o,$(third_o))
$(B)/lathe.so: $(B)/o/src/main.o $(B)/o/src/modules.o $(filter-out $(B)/o/src/base/% $(B)/o/src/os/%,$(lib_o)) $(sim_third)
	@echo "  link  $@"; $(sim_so)
$(B)/fake-engine.so: $(fake_o) $(filter $(B)/o/src/net/%,$(lib_o)) $(sim_third)
	@echo "  link  $@"; $(sim_so)
$(B)/lathe-sim: $(sim_o) $(filter $(B)/o/src/base/% $(B)/o/src/os/% $(B)/o/src/net/% $(B)/o/src/db/% $(B)/o/src/job/shim% $(B)/o/src/job/reason.o,$(lib_o)) $(third_o)
	@echo "  link  $@"; $(CC) $(ldflags) -rdynamic $(sim_wrap) -o $@ $^ $(libs) -ldl

# Scenarios whose n-th system call or allocation fails (test/inject/README.md), with the fixtures of the units.
inject_o := $(patsubst %.c,$(B)/o/%.o,$(wildcard test/inject/*.c))
$(B)/lathe-inject: $(inject_o) $(B)/o/src/modules.o $(test_o) $(lib_o) $(third_o) $(B)/o/bench/hist.o $(B)/o/bench/arrival.o
	@echo "  link  $@"; $(CC) $(ldflags) -o $@ $^ $(libs) -ldl

# One layer's tests with only what it stands on: make test-os
base_on := base
os_on := base os
net_on := base os net
db_on := base os db
llm_on := base os llm
blob_on := base os net blob
job_on := base os net db blob job
res_on := base os net db blob job res
define layer_test
$(B)/test-$(1): $(B)/o/test/main.o $$(filter $$(foreach l,$$($(1)_on),$(B)/o/src/$$(l)/%),$$(lib_o)) \
                $$(filter $(B)/o/src/$(1)/%,$$(test_o)) $(third_o)
	@echo "  link  $$@"; $(CC) $$(ldflags) -o $$@ $$^ $$(libs)
test-$(1): $(B)/test-$(1)
	@$$< $(T)
.PHONY: test-$(1)
endef
$(foreach l,$(layers),$(eval $(call layer_test,$(l))))

$(B)/o/%.o: %.c
	@mkdir -p $(@D); echo "  cc    $<"
	$(Q)$(CC) $(cflags) -MMD -MP -c -o $@ $<
$(B)/o/third/yyjson.o: $(B)/deps.mk
	@mkdir -p $(@D); $(CC) -O2 -g $(filter -fPIC,$(OPT)) $(third_san) -c -o $@ $(YYJSON_DIR)/yyjson.c
$(B)/o/third/%.o: $(B)/deps.mk
	@mkdir -p $(@D); $(CC) -O2 -g $(filter -fPIC,$(OPT)) $(third_san) -I$(LLHTTP_DIR)/include -c -o $@ $(LLHTTP_DIR)/src/$*.c
-include $(lib_o:.o=.d) $(test_o:.o=.d) $(fake_o:.o=.d) $(sim_o:.o=.d) $(bench_o:.o=.d) $(inject_o:.o=.d) $(B)/o/src/main.d $(B)/o/src/modules.d $(B)/o/test/main.d

setup: ## install system packages, fetch pinned ones, build the inference engine (once)
	@deps/fetch system build
	@deps/fetch packages
	@deps/fetch engine
setup-check:
	@deps/fetch system check
	@deps/fetch packages
	@deps/fetch engine
	@deps/fetch venv
demo: setup ## from nothing to a governed answer: install, build, and walk the main job
	@$(MAKE) --no-print-directory $(at_once) $(B)/lathe
	@test/demo $(B)
check: setup-check ## everything that must hold; ends with `N passed, N failed`
	@$(MAKE) --no-print-directory $(at_once) all $(B)/replay $(B)/lathe-inject
	@test/check
test: $(B)/lathe-test ## units only: make test T=pattern
	@$(B)/lathe-test $(T)
sim: ## the real program on simulated machines: SEEDS (100) from FIRST (1) on, ROUNDS (60) of each client
	@$(MAKE) --no-print-directory $(at_once) B=$(B)/sim OPT="-O1 -g -fPIC" $(B)/sim/lathe-sim $(B)/sim/lathe.so $(B)/sim/fake-engine.so
	@$(B)/sim/lathe-sim --seeds $(or $(SEEDS),100) --first $(or $(FIRST),1) --rounds $(or $(ROUNDS),60)
inject: ## the n-th system call or allocation of each scenario fails: [MOST=runs of each kind] [T=pattern]
	@$(MAKE) --no-print-directory $(at_once) $(B)/lathe-inject
	@$(if $(shell test/postgres-run true 2>/dev/null && echo 1),test/postgres-run) $(B)/lathe-inject \
	    $(if $(MOST),-m $(MOST)) $(T)
san: ## the whole suite under AddressSanitizer and UndefinedBehaviorSanitizer: [P=parts] [T=units]
	@$(MAKE) --no-print-directory $(at_once) B=$(B)/san SAN=address,undefined OPT="-O1 -g" \
	    all $(B)/san/replay $(B)/san/lathe-inject
	@T="$(T)" test/sanitized $(B)/san $(P)
tsan: ## the same under ThreadSanitizer, without the injector and the corpora
	@$(MAKE) --no-print-directory $(at_once) B=$(B)/tsan SAN=thread OPT="-O1 -g" all
	@T="$(T)" test/sanitized $(B)/tsan $(P)
cover: ## line coverage of the units by folder
	@$(MAKE) --no-print-directory $(at_once) B=$(B)/cover OPT="-O0 -g --coverage -fprofile-update=atomic" \
	    ldflags="--coverage -Wl,-u,__gcov_dump" $(B)/cover/lathe-test
	@find $(B)/cover -name '*.gcda' -delete
	@$(if $(shell test/postgres-run true 2>/dev/null && echo 1),test/postgres-run) $(B)/cover/lathe-test $(T) \
	    > $(B)/cover/test.log 2>&1; tail -n 1 $(B)/cover/test.log
	@tools/coverage $(B)/cover
# With clang libFuzzer drives them; with another compiler they replay their corpora, as `make check` does.
fuzzers := $(patsubst fuzz/%_fuzz.c,%,$(wildcard fuzz/*_fuzz.c))
fuzz_with = $(B)/o/fuzz/toy.o $(B)/o/src/db/suite_test.o $(B)/o/src/modules.o $(lib_o) $(third_o)
FUZZ_CC ?= $(shell command -v clang || echo $(CC))
libfuzzer = $(shell echo 'int LLVMFuzzerTestOneInput(char *p, long n) { return p && n < 0; }' | \
    $(FUZZ_CC) -fsanitize=fuzzer -x c - -o /dev/null 2>/dev/null && echo fuzzer)
clang_c = -fdouble-square-bracket-attributes
fuzz: ## every parser against a fuzzer: make fuzz [SECONDS=20] [F="http json"] [AT_ONCE=1]
	@$(MAKE) --no-print-directory $(at_once) B=$(B)/fuzz CC=$(FUZZ_CC) SAN=address,undefined \
	    OPT="-O1 -g $(if $(libfuzzer),-fsanitize=fuzzer-no-link $(clang_c))" \
	    $(if $(libfuzzer),$(fuzzers:%=$(B)/fuzz/%),$(B)/fuzz/replay)
	@$(if $(libfuzzer),$(MAKE) --no-print-directory $(at_once) B=$(B)/fuzz/cover CC=$(FUZZ_CC) \
	    OPT="-O1 -g -fprofile-instr-generate -fcoverage-mapping $(clang_c)" \
	    ldflags=-fprofile-instr-generate $(B)/fuzz/cover/replay)
	@SECONDS_EACH=$(or $(SECONDS),20) AT_ONCE=$(or $(AT_ONCE),1) test/fuzz $(B)/fuzz $(or $(F),$(fuzzers))
$(fuzzers:%=$(B)/%): $(B)/%: $(B)/o/fuzz/%_fuzz.o $(fuzz_with)
	@echo "  link  $@"; $(CC) $(ldflags) -fsanitize=fuzzer -o $@ $^ $(libs)
replay_o = $(B)/o/replay/replay.o $(fuzzers:%=$(B)/o/replay/%_fuzz.o)
$(B)/replay: $(replay_o) $(fuzz_with)
	@echo "  link  $@"; $(CC) $(ldflags) -o $@ $^ $(libs)
$(B)/o/replay/%.o: fuzz/%.c
	@mkdir -p $(@D); echo "  cc    $< (replay)"
	$(Q)$(CC) $(cflags) -Ifuzz -DFUZZ_REPLAY -MMD -MP -c -o $@ $<
-include $(wildcard $(B)/o/replay/*.d $(B)/o/fuzz/*.d)
lint: ## layers, lengths, banned calls, headers alone, words
	@deps/fetch have cc pkg-config python3
	@tools/check
install: $(B)/lathe ## lathe and its bash completion to $(PREFIX), /usr/local unless said
	install -D -m 0755 $(B)/lathe $(DESTDIR)$(PREFIX)/bin/lathe
	@mkdir -p $(B) && $(B)/lathe completion bash > $(B)/completion
	install -D -m 0644 $(B)/completion $(DESTDIR)$(PREFIX)/share/bash-completion/completions/lathe
	@[ ! -x "$(LLAMA_SERVER)" ] || echo "the engine stays in the cache; for other users:" \
	    "lathe serve --deployment.llama_server=$(LLAMA_SERVER)"
bench: all ## our figures beside a rival's, from the same run
	@bench/run
mutants: all ## each committed mutation of the code must turn a test red
	@test/mutants
clean: ## remove the build folder (the package cache stays)
	rm -rf $(B)
help: ## this list
	@echo 'make [B=FOLDER] [V=1] [CC=…] TARGET; without one: all'
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo '  make test-LAYER the units of one layer alone: $(layers)'
