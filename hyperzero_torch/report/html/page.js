// Colours such as "@ink" are the stylesheet's, so that plots follow light and dark. Figures near the
// visible part are drawn first, and all before printing.
(function(){
"use strict";
var reloadEvery=__RELOAD__;
var root=document.documentElement;
var hovers=matchMedia("(hover: hover)").matches;
var dark=matchMedia("(prefers-color-scheme: dark)");
var config={displayModeBar:hovers?"hover":false,responsive:false,displaylogo:false,
modeBarButtonsToRemove:["select2d","lasso2d","autoScale2d"]};
var figures=__FIGURES__;
var plots=Array.prototype.slice.call(document.querySelectorAll(".plot"));
var drawn={};
function keep(store,key,value){try{store.setItem(key,value);}catch(error){}}
function stored(store,key){try{return store.getItem(key);}catch(error){return null;}}
function color(value,style){
  var parts=value.slice(1).split("/"),hex=parts[0];
  if(hex[0]!=="#"){hex=style.getPropertyValue("--"+hex).trim();}
  if(parts.length===1){return hex;}
  var rgb=[1,3,5].map(function(i){return parseInt(hex.slice(i,i+2),16);});
  return "rgba("+rgb.join(",")+","+parts[1]+")";
}
function resolve(value,style,key){
  if(Array.isArray(value)){return value.map(function(v){return resolve(v,style,key);});}
  if(value&&typeof value==="object"){
    var out={};
    Object.keys(value).forEach(function(k){out[k]=resolve(value[k],style,k);});
    return out;
  }
  if(typeof value==="string"&&value[0]==="@"&&/color$/.test(key)){
    return color(value,style);
  }
  if(key==="family"&&value==="inherit"){return style.fontFamily;}
  return value;
}
function draw(i){
  var made=resolve(figures[i],getComputedStyle(document.body),"");
  drawn[i]=true;
  Plotly.react(plots[i],made.data,made.layout,config);
}
function redraw(){Object.keys(drawn).forEach(function(i){draw(+i);});}
function drawAll(){plots.forEach(function(plot,i){if(!drawn[i]){draw(i);}});}
if("IntersectionObserver" in window){
  var near=new IntersectionObserver(function(entries){
    entries.forEach(function(entry){
      var i=plots.indexOf(entry.target);
      if(entry.isIntersecting&&!drawn[i]){near.unobserve(entry.target);draw(i);}
    });
  },{rootMargin:"900px 300px"});
  plots.forEach(function(plot){near.observe(plot);});
}else{drawAll();}
// The rest later, one by one, so that the page stays responsive.
function drawNext(){
  var i=plots.findIndex(function(_,at){return !drawn[at];});
  if(i>=0){draw(i);setTimeout(drawNext,20);}
}
addEventListener("load",function(){setTimeout(drawNext,200);});
// Sections fold; on a phone all but the summary begin folded, unless they are asked for.
var folds=Array.prototype.slice.call(document.querySelectorAll(".fold"));
function body(fold){return document.getElementById(fold.getAttribute("aria-controls"));}
function unfold(fold,open){
  fold.setAttribute("aria-expanded",String(open));
  body(fold).hidden=!open;
}
function wanted(){
  var section=location.hash.length>1&&document.getElementById(location.hash.slice(1));
  var fold=section&&section.querySelector(".fold");
  if(fold){unfold(fold,true);}
}
folds.forEach(function(fold,i){
  fold.addEventListener("click",function(){unfold(fold,body(fold).hidden);});
  if(i&&matchMedia("(max-width:560px)").matches){unfold(fold,false);}
});
wanted();
addEventListener("hashchange",wanted);
// On paper the theme is light.
var onScreen;
addEventListener("beforeprint",function(){
  folds.forEach(function(fold){unfold(fold,true);});
  onScreen=root.dataset.theme;
  root.dataset.theme="light";
  redraw();
  drawAll();
});
addEventListener("afterprint",function(){
  if(onScreen){root.dataset.theme=onScreen;}else{delete root.dataset.theme;}
  redraw();
});
// A plot follows the size of its own box.
var boxes=new ResizeObserver(function(entries){
  entries.forEach(function(entry){
    if(drawn[plots.indexOf(entry.target)]){Plotly.Plots.resize(entry.target);}
  });
});
plots.forEach(function(plot){boxes.observe(plot);});
var button=document.getElementById("theme");
function showTheme(){
  var chosen=root.dataset.theme||"automatic";
  button.textContent="Theme: "+chosen;
}
showTheme();
button.addEventListener("click",function(){
  var order=["automatic",dark.matches?"light":"dark",dark.matches?"dark":"light"];
  var next=order[(order.indexOf(root.dataset.theme||"automatic")+1)%3];
  if(next==="automatic"){delete root.dataset.theme;}else{root.dataset.theme=next;}
  keep(localStorage,"hyperzero-theme",next);
  showTheme();
  redraw();
});
dark.addEventListener("change",redraw);
if(reloadEvery!==null){
  // After a reload the same tables are open, at the same scroll position.
  var where="hyperzero-place "+location.pathname;
  var tables=Array.prototype.slice.call(document.querySelectorAll("details"));
  var names=tables.map(function(table){
    return table.parentNode.querySelector("h3").textContent;
  });
  var before=JSON.parse(stored(sessionStorage,where)||"null");
  if(before){
    tables.forEach(function(table,i){table.open=before.open.indexOf(names[i])>=0;});
    scrollTo({top:before.top,behavior:"instant"});
  }
  var pause=document.getElementById("pause"),timer=null;
  var wait=function(){
    timer=setTimeout(function(){
      keep(sessionStorage,where,JSON.stringify({top:scrollY,
        open:names.filter(function(_,i){return tables[i].open;})}));
      location.reload();
    },reloadEvery*1000);
  };
  pause.addEventListener("click",function(){
    var paused=pause.getAttribute("aria-pressed")!=="true";
    pause.setAttribute("aria-pressed",String(paused));
    pause.textContent=paused?"Resume refreshing":"Pause refreshing";
    if(paused){clearTimeout(timer);}else{wait();}
  });
  wait();
}
})();
